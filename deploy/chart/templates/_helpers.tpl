{{/* The image of all pods. */}}
{{- define "vaultmount.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether the driver asks the API server for anything. */}}
{{- define "vaultmount.usesAPI" -}}
{{- if or .Values.events.enabled .Values.startupTaint.enabled }}true{{ end -}}
{{- end -}}

{{- define "vaultmount.tokensInSecrets" -}}
{{- $wanted := .Values.driver.tokensInSecrets -}}
{{- if eq (toString $wanted) "auto" -}}
{{- if semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version }}true{{ end -}}
{{- else if $wanted }}true{{ end -}}
{{- end -}}

{{/*
Whether the API server translates annotations. By default it does where it can: a
pod with annotations that nothing translates would start without its secrets.
*/}}
{{- define "vaultmount.policy" -}}
{{- $wanted := .Values.policy.enabled -}}
{{- if eq (toString $wanted) "auto" -}}
{{- if and (not .Values.webhook.enabled) (semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version) }}true{{ end -}}
{{- else if $wanted }}true{{ end -}}
{{- end -}}

{{- define "vaultmount.guard" -}}
{{- $wanted := .Values.guard.enabled -}}
{{- if eq (toString $wanted) "auto" -}}
{{- if or .Values.webhook.enabled (include "vaultmount.policy" .) }}true{{ end -}}
{{- else if $wanted }}true{{ end -}}
{{- end -}}

{{/*
Whether files belong to the pod's own user where no annotation says: for the driver,
for the webhook, and for what the policy has to send.
*/}}
{{- define "vaultmount.noSecurityContext" -}}
{{- $wanted := .Values.agentSetSecurityContext -}}
{{- if eq (toString $wanted) "auto" -}}
{{- if .Values.openshift.enabled }}true{{ end -}}
{{- else if not $wanted }}true{{ end -}}
{{- end -}}

{{/* The ConfigMap with the CA certificates of Vault. */}}
{{- define "vaultmount.caConfigMap" -}}
{{- with .Values.vault.ca -}}
{{- if .certificate }}vaultmount-vault-ca{{ else }}{{ .configMap }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* The port of a URL. */}}
{{- define "vaultmount.portOf" -}}
{{- $host := (urlParse .).host -}}
{{- if regexMatch ":[0-9]+$" $host -}}
{{ regexFind "[0-9]+$" $host }}
{{- else if hasPrefix "https:" . -}}
443
{{- else -}}
80
{{- end -}}
{{- end -}}

{{/*
The ports of Vault and of the proxies in front of it, for a NetworkPolicy. Most network plugins hold a policy against
the port of the pod, after that of the Service has been translated, and others before.
The pods behind a Service usually listen at 8200.
*/}}
{{- define "vaultmount.vaultPorts" -}}
{{- $ports := .Values.networkPolicy.vaultPorts -}}
{{- if not $ports -}}
{{- range concat (list .Values.vault.address) .Values.vault.allowAddresses .Values.vault.allowProxies -}}
{{- $ports = append $ports (include "vaultmount.portOf" . | int) -}}
{{- $name := regexReplaceAll ":[0-9]+$" (urlParse .).host "" -}}
{{- if regexMatch "^[^.:]+$|\\.svc(\\.|$)" $name -}}
{{- $ports = append $ports 8200 -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ $ports | uniq | toJson }}
{{- end -}}

{{/* The object that a webhook's pods, or the driver's, are found by. */}}
{{- define "vaultmount.selector" -}}
app.kubernetes.io/name: {{ . }}
{{- end -}}
