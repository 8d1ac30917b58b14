package annotation

// Annotations that are read together with others.
const (
	nameAuthMaxBackoff     = "auth-max-backoff"
	nameAuthMinBackoff     = "auth-min-backoff"
	nameAuthPath           = "auth-path"
	nameAuthType           = "auth-type"
	nameCACert             = "ca-cert"
	nameClientCert         = "client-cert"
	nameClientKey          = "client-key"
	nameClientTimeout      = "client-timeout"
	nameConfigMap          = "agent-configmap"
	nameContainers         = "agent-inject-containers"
	nameDefaultTemplate    = "agent-inject-default-template"
	nameExtraSecret        = "agent-extra-secret"
	nameInitPatch          = "agent-init-json-patch"
	namePatch              = "agent-json-patch"
	namePrePopulate        = "agent-pre-populate"
	namePrePopulateOnly    = "agent-pre-populate-only"
	namePreserveCase       = "preserve-secret-case"
	nameRequestNamespace   = "agent-request-namespace"
	nameRole               = "role"
	nameRunAsGroup         = "agent-run-as-group"
	nameRunAsSameUser      = "agent-run-as-same-user"
	nameRunAsUser          = "agent-run-as-user"
	nameSetSecurityContext = "agent-set-security-context"
	nameShareProcesses     = "agent-share-process-namespace"
	nameToken              = "agent-inject-token"
	nameSkipVerify         = "tls-skip-verify"
	nameTLSSecret          = "tls-secret"
	nameTokenVolume        = "agent-service-account-token-volume-name"
	nameVolumePath         = "secret-volume-path"
)

// Families of annotations: what follows is the X of a file, or the Y of a
// setting.
const (
	familyAuthConfig   = "auth-config-"
	familyCommand      = "agent-inject-command-"
	familyFile         = "agent-inject-file-"
	familyLeftDelim    = "agent-template-left-delim-"
	familyMissingKey   = "error-on-missing-key-"
	familyPerms        = "agent-inject-perms-"
	familyPreserveCase = "preserve-secret-case-"
	familyRightDelim   = "agent-template-right-delim-"
	familySecret       = "agent-inject-secret-"
	familyTelemetry    = "agent-telemetry-"
	familyTemplate     = "agent-inject-template-"
	familyTemplateFile = "agent-inject-template-file-"
	familyVolumePath   = "secret-volume-path-"
)
