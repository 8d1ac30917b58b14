package injector

import (
	"path"
	"strings"

	"github.com/vaultmount/vaultmount/driver/volume"
)

// connectionRows choose the Vault and the way to it.
func connectionRows() []row {
	return []row{
		{[]string{"namespace"}, honoured, checkVaultNamespace, "empty, `/`"},
		{[]string{"service"}, inDriverTerms, checkAddress, "the address of the driver's Vault"},
		{[]string{"proxy-address"}, inDriverTerms, unless(emit("proxy-address"), ""), "empty"},
		{[]string{nameSkipVerify}, honoured, checked(checkBool, unlessFalse(emitSkipVerify)), "`false`"},
		{[]string{nameTLSSecret}, inDriverTerms, unless(checkSecretName, ""), "empty"},
		{[]string{nameCACert}, inDriverTerms, unless(checkCACert, ""), "empty"},
		{[]string{"ca-key"}, inDriverTerms, unless(checkCADirectory, ""), "empty"},
		{[]string{nameClientCert}, inDriverTerms, unless(paired(nameClientKey, emitKey(nameClientCert, tlsSecret(), extraSecret())), ""), "empty"},
		{[]string{nameClientKey}, inDriverTerms, unless(paired(nameClientCert, emitKey(nameClientKey, tlsSecret(), extraSecret())), ""), "empty"},
		{[]string{"tls-server-name"}, honoured, unless(emit("tls-server-name"), ""), "empty"},
		{[]string{"client-max-retries"}, inDriverTerms, checked(checkInteger, unless(emitRetries, "", "2")), "`2`, empty"},
		{[]string{nameClientTimeout}, inDriverTerms, checked(checkDurationOrSeconds, unless(emitWithin(nameClientTimeout, shortestTimeout, longestTimeout), "")), "empty"},
		{[]string{"template-max-connections-per-host"}, warnedAbout, checked(checkInteger, unless(moot("has no effect: the driver's connections serve all pods of the node; remove it"), "", "10")), "`10`, empty"},
		{[]string{"agent-disable-idle-connections"}, warnedAbout, checked(checkConnections(), unless(moot("has no effect: there is no agent in the pod; remove it"), "")), "empty"},
		{[]string{"agent-disable-keep-alives"}, warnedAbout, checked(checkConnections(), unless(moot("has no effect: there is no agent in the pod; remove it"), "")), "empty"},
	}
}

// tokenDirectory is where Kubernetes mounts the service-account token.
const tokenDirectory = "/var/run/secrets/kubernetes.io/serviceaccount"

func checkConnections() func(string) error {
	return checkList("auto-auth", "caching", "templating")
}

// checkVaultNamespace passes over the root, where a volume without the attribute
// is as well.
func checkVaultNamespace(r *reading, name, value string) {
	if strings.Trim(value, "/") != "" {
		emit("namespace")(r, name, value)
	}
}

// checkAddress leaves the choice to the driver's allow-list: the pod's token is
// sent to the address, and what is translated here could be written by hand.
func checkAddress(r *reading, name, value string) {
	if value == "" {
		r.refuse(name, "no Vault address found; remove it for the driver's Vault")
		return
	}
	address := strings.TrimRight(r.settings.Address, "/")
	if address == "" || strings.TrimRight(value, "/") != address {
		emit("address")(r, name, value)
	}
}

func emitSkipVerify(r *reading, name, _ string) {
	if r.settings.ForbidSkipVerify {
		r.refuse(name, "is forbidden in this cluster; remove it, and name Vault's authority with ca-cert")
		return
	}
	emit(name)(r, name, "true")
	r.warn(name, "any server may take itself for Vault and receive the pod's token; remove it, and name Vault's authority with ca-cert")
}

// checkCACert: where no certificate is verified, the authority means nothing to
// the agent, and the driver refuses the contradiction.
func checkCACert(r *reading, name, value string) {
	if clean := path.Clean(value); volume.IsClusterCA(clean) {
		r.attributes[name] = attribute{clean, name}
	} else {
		emitKey(name, tlsSecret(), extraSecret())(r, name, value)
	}
	if _, ok := r.attributes[name]; ok && r.isOn(nameSkipVerify, false) {
		r.drop(name)
		r.warn(name, "has no effect beside %s; remove one of the two", nameSkipVerify)
	}
}

// checkCADirectory: a volume takes one file of authorities. The agent reads no
// directory either where there is a file.
func checkCADirectory(r *reading, name, value string) {
	directory := tlsSecret().directory
	switch clean := path.Clean(value); {
	case clean != directory && !isBelow(clean, directory):
		r.refuse(name, "%s is a directory of the injector's agent, which the pod no longer has; put its certificates into one key of the Secret of tls-secret, and name it with ca-cert", quote(value))
	case r.values[nameCACert] == "":
		r.refuse(name, "a volume takes one file of authorities and no directory; write %s%s: %s/KEY instead", r.settings.Prefix, nameCACert, directory)
	default:
		r.warn(name, "has no effect beside ca-cert; remove it")
	}
}

func paired(other string, then treatment) treatment {
	return func(r *reading, name, value string) {
		if r.values[other] == "" {
			r.refuse(name, "needs %s%s beside it", r.settings.Prefix, other)
			return
		}
		then(r, name, value)
	}
}

// isBelow compares clean paths.
func isBelow(path, directory string) bool {
	return strings.HasPrefix(path, strings.TrimSuffix(directory, "/")+"/")
}
