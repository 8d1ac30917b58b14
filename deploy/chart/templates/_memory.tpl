{{/*
A quantity in KiB. The argument is a list: the values, a section's name, a key.
Templates can only compute with what they can read, so other units are refused.
*/}}
{{- define "vaultmount.kibibytes" -}}
{{- $key := index . 1 -}}
{{- $text := get (index . 0).driver $key | toString -}}
{{- if not (regexMatch "^[1-9][0-9]{0,6}(Ki|Mi|Gi)$" $text) -}}
{{- fail (printf "driver.%s: %q is no whole number of Ki, Mi or Gi; write it like %s" $key $text (index . 2)) -}}
{{- end -}}
{{- $number := regexFind "^[0-9]+" $text | int64 -}}
{{- if hasSuffix "Gi" $text }}{{ mul $number 1048576 }}{{ else if hasSuffix "Mi" $text }}{{ mul $number 1024 }}{{ else }}{{ $number }}{{ end -}}
{{- end -}}

{{/*
What the driver's container needs. Volumes are memory, and count as the
container's: what all of them may take is requested along with the program's
64 MiB. The limit adds what is needed at times: 100 MiB for each of at most
three processes that run templates, 64 MiB for Vault's responses while they are
read, and 64 MiB for the driver's state.
The CPU limit keeps what tenants ask of the driver from taking the whole node.
*/}}
{{- define "vaultmount.resources" -}}
{{- $capacity := include "vaultmount.kibibytes" (list .Values "volumeCapacity" "128Mi") | int64 -}}
{{- $largest := include "vaultmount.kibibytes" (list .Values "maxVolumeSize" "16Mi") | int64 -}}
{{- $usual := include "vaultmount.kibibytes" (list .Values "volumeSize" "1Mi") | int64 -}}
{{- if gt $largest $capacity -}}
{{- fail (printf "driver.maxVolumeSize: %s is more than the %s of driver.volumeCapacity, which all volumes of a node share; lower the one or raise the other" .Values.driver.maxVolumeSize .Values.driver.volumeCapacity) -}}
{{- end -}}
{{- $share := div (mul $capacity (int64 .Values.driver.namespaceShare)) 100 -}}
{{- if gt $largest $share -}}
{{- fail (printf "driver.maxVolumeSize: %s is more than the %dKi that a namespace may take (driver.namespaceShare, %d percent of driver.volumeCapacity); lower the one or raise the other" .Values.driver.maxVolumeSize $share (int .Values.driver.namespaceShare)) -}}
{{- end -}}
{{- if gt $usual $largest -}}
{{- fail (printf "driver.volumeSize: %s is more than the %s of driver.maxVolumeSize; lower the one or raise the other" .Values.driver.volumeSize .Values.driver.maxVolumeSize) -}}
{{- end -}}
{{- $mebibytes := div (add $capacity 1023) 1024 -}}
{{- $computed := dict
  "requests" (dict "cpu" "10m" "memory" (printf "%dMi" (add $mebibytes 64)))
  "limits" (dict "cpu" "2" "memory" (printf "%dMi" (add $mebibytes 64 300 64 64))) -}}
{{- mergeOverwrite $computed (deepCopy .Values.driver.resources) | toYaml -}}
{{- end -}}
