package volume

import "testing"

// FuzzConnection is FuzzAttributes for the attributes that say which
// Vault and how to enter it.
func FuzzConnection(f *testing.F) {
	f.Add("jwt", "", "", "1s", "1m", "https://vault:8200", "http://proxy:3128", "team", "vault", "false", "ca.crt", "tls.crt", "tls.key", "60", "3")
	f.Add("approle", "role", "secret", "", "", "", "", "", "", "true", "", "", "", "1m", "0")
	f.Fuzz(func(t *testing.T, authType, roleID, secretID, minBackoff, maxBackoff, address, proxy, namespace, serverName, skipVerify, ca, cert, key, timeout, retries string) {
		attributes := map[string]string{"template/a": "x"}
		for key, value := range map[string]string{
			keyAuthType: authType, keyRoleID: roleID, keySecretID: secretID, keyAuthMinBackoff: minBackoff, keyAuthMaxBackoff: maxBackoff,
			keyAddress: address, keyProxy: proxy, keyNamespace: namespace, keyServerName: serverName, keySkipVerify: skipVerify,
			keyCACert: ca, keyClientCert: cert, keyClientKey: key, keyClientTimeout: timeout, keyMaxRetries: retries,
		} {
			if value != "" {
				attributes[key] = value
			}
		}
		if authType == string(Kubernetes) || authType == "" {
			attributes[keyRole] = "app"
		}
		requireLinearCost(t, attributes)
	})
}
