package injector

import (
	"encoding/json"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/vaultmount/vaultmount/driver/volume"
)

// noopRule decides whether a value may have no effect, by what README.md says in words. It
// is independent of the code that it tests.
type noopRule func(r *translation, m match, value string) bool

func noopRules() map[string]noopRule {
	empty := anyOf("")
	return map[string]noopRule{
		nameStatus:                anyValue,
		nameContainers:            noopContainers,
		nameVolumePath:            func(_ *translation, _ match, value string) bool { return path.Clean(value) == volume.DefaultMountPath },
		nameDefaultTemplate:       func(_ *translation, _ match, value string) bool { return strings.EqualFold(value, "map") },
		namePreserveCase:          noopPreserveCase,
		nameShareProcesses:        isFalse,
		"agent-request-namespace": func(r *translation, _ match, value string) bool { return value == r.namespace },
		nameConfigMap:             empty,

		familySecret + "X": func(r *translation, m match, _ string) bool {
			return r.values[familyTemplate+m.suffix] != "" || r.values[familyTemplateFile+m.suffix] != ""
		},
		familyFile + "X": func(_ *translation, m match, value string) bool {
			return slices.Contains([]string{m.suffix, strings.ToLower(m.suffix)}, path.Clean("/" + value)[1:])
		},
		familyPerms + "X":        isPerms0644,
		familyMissingKey + "X":   isFalse,
		familyLeftDelim + "X":    noopDelim,
		familyRightDelim + "X":   noopDelim,
		familyVolumePath + "X":   func(r *translation, _ match, value string) bool { return path.Clean(value) == r.directory },
		familyPreserveCase + "X": noopPreserveCase,
		nameToken:                isFalse,

		nameAuthType: anyOf("kubernetes"),
		nameAuthPath: func(_ *translation, _ match, value string) bool { return strings.Trim(value, "/") == "auth/kubernetes" },
		familyAuthConfig + "Y": func(r *translation, m match, value string) bool {
			return authConfigKey(m.family+m.suffix) == "token_path" && slices.Contains([]string{"", "kubernetes"}, r.values[nameAuthType]) && value == tokenPath
		},
		"auth-min-backoff":            anyOf("1s"),
		"auth-max-backoff":            anyOf("5m"),
		"agent-auto-auth-exit-on-err": isFalse,
		nameTokenVolume:               empty,

		"namespace": func(_ *translation, _ match, value string) bool { return strings.Trim(value, "/") == "" },
		"service": func(r *translation, _ match, value string) bool {
			return r.settings.Address != "" && strings.Trim(value, "/") == r.settings.Address
		},
		"proxy-address":                     empty,
		"tls-skip-verify":                   isFalse,
		"tls-secret":                        empty,
		"ca-cert":                           empty,
		"ca-key":                            empty,
		"client-cert":                       empty,
		"client-key":                        empty,
		"tls-server-name":                   empty,
		"client-max-retries":                anyOf("2", ""),
		"client-timeout":                    empty,
		"template-max-connections-per-host": anyOf("10", ""),
		"agent-disable-idle-connections":    empty,
		"agent-disable-keep-alives":         empty,

		"template-static-secret-render-interval": empty,
		"template-lease-renewal-threshold":       anyOf("0.9", "0.90"),
		"template-config-exit-on-retry-failure":  isBool,
		"agent-init-first":                       isBool,
		namePrePopulate:                          isTrue,
		namePrePopulateOnly:                      isFalse,
		"agent-revoke-grace":                     anyOf("5"),
		"agent-cache-enable":                     isFalse,
		"agent-cache-use-auto-auth-token":        anyOf("true"),
		"agent-cache-listener-port":              anyOf("8200"),
		"agent-cache-exit-on-err":                isFalse,
		"agent-enable-quit":                      isFalse,

		nameRunAsUser:     isNumber(100),
		nameRunAsGroup:    isNumber(1000),
		nameRunAsSameUser: isFalse,
		nameSetSecurityContext: func(r *translation, m match, value string) bool {
			return isTrue(r, m, value) != r.settings.NoSecurityContext || saysNothingOfUsers(r.pod)
		},

		nameExtraSecret:            empty,
		"agent-copy-volume-mounts": empty,
		"agent-image":              empty,
		"agent-limits-cpu":         empty,
		"agent-limits-mem":         empty,
		"agent-limits-ephemeral":   empty,
		"agent-requests-cpu":       empty,
		"agent-requests-mem":       empty,
		"agent-requests-ephemeral": empty,
		"go-max-procs":             empty,
		"log-level":                anyOf("info", ""),
		"log-format":               anyOf("standard", ""),
		namePatch:                  noopPatch,
		nameInitPatch:              noopPatch,
	}
}

func anyValue(*translation, match, string) bool { return true }

func anyOf(values ...string) noopRule {
	return func(_ *translation, _ match, value string) bool { return slices.Contains(values, value) }
}

func isBool(_ *translation, _ match, value string) bool {
	_, err := strconv.ParseBool(value)
	return err == nil || value == ""
}

func isFalse(_ *translation, _ match, value string) bool {
	on, err := strconv.ParseBool(value)
	return value == "" || err == nil && !on
}

func isTrue(_ *translation, _ match, value string) bool {
	on, err := strconv.ParseBool(value)
	return err == nil && on
}

func isNumber(number int64) noopRule {
	return func(_ *translation, _ match, value string) bool {
		got, err := strconv.ParseInt(value, 10, 64)
		return err == nil && got == number
	}
}

func isPerms0644(_ *translation, _ match, value string) bool {
	perms, err := strconv.ParseUint(value, 8, 32)
	return err == nil && perms == 0o644
}

func noopContainers(r *translation, _ match, value string) bool {
	for _, container := range r.pod.Spec.Containers {
		listed := func(part string) bool { return strings.TrimSpace(part) == container.Name }
		if !slices.ContainsFunc(strings.Split(value, ","), listed) {
			return false
		}
	}
	return true
}

// noopPreserveCase: the case of a name without capital letters, or of one that is
// not used, is nothing to preserve.
func noopPreserveCase(r *translation, m match, value string) bool {
	if isFalse(r, m, value) && m.family == "" {
		return true
	}
	for _, suffix := range suffixesOf(r) {
		_, named := r.values[familyFile+suffix]
		_, own := r.values[familyPreserveCase+suffix]
		decides := m.suffix == suffix || m.family == "" && !own
		if decides && !named && suffix != strings.ToLower(suffix) && r.isOn(namePreserveCase, false) != r.isOn(familyPreserveCase+suffix, r.isOn(namePreserveCase, false)) {
			return false
		}
	}
	return true
}

func noopDelim(r *translation, m match, value string) bool {
	return slices.Contains([]string{"{{", "}}"}, value) && strings.TrimSpace(r.values[familyTemplate+m.suffix]) == ""
}

// noopPatch: nothing, or the ids that the files have anyway.
func noopPatch(_ *translation, _ match, value string) bool {
	var operations []operation
	err := json.Unmarshal([]byte(value), &operations)
	sets := func(o operation) bool { return ownerAttributes()[o.Path] == "" }
	return value == "" || err == nil && !slices.ContainsFunc(operations, sets)
}

func saysNothingOfUsers(pod PodInfo) bool {
	if c := pod.Spec.SecurityContext; c != nil && (c.RunAsUser != nil || c.RunAsGroup != nil) {
		return false
	}
	c := pod.Spec.Containers[0].SecurityContext
	return c == nil || c.RunAsUser == nil && c.RunAsGroup == nil
}

// suffixesOf are those that may make a file.
func suffixesOf(r *translation) []string {
	var suffixes []string
	for _, m := range r.rows {
		if strings.HasPrefix(m.family, familySecret) || strings.HasPrefix(m.family, familyTemplate) {
			suffixes = append(suffixes, m.suffix)
		}
	}
	return suffixes
}
