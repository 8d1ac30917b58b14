package driver

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/vaultmount/vaultmount/driver/volume"
)

// vaultAudience is preferred where the CSIDriver offers it: a token for Vault is
// of no use to whoever steals it for the API server.
const vaultAudience = "vault"

// chooseToken takes the pod's token out of a request. Kubernetes 1.36 sends it
// among the secrets, where no user can plant one; older ones send it in the
// volume context, and replace what a user planted there.
func chooseToken(request *csi.NodePublishVolumeRequest, pod volumeContext, audience volume.Audience) (string, error) {
	text, inSecrets := request.GetSecrets()[keyTokens]
	inContext, planted := request.GetVolumeContext()[keyTokens]
	if inSecrets && planted {
		return "", refuse(keyTokens, "is the kubelet's own and comes another way in this cluster; leave it out")
	}
	if !inSecrets {
		text = inContext
	}
	if text == "" {
		return "", fmt.Errorf("%w: the CSIDriver object must have tokenRequests", errNoToken)
	}
	token, err := pickToken(text, audience)
	if err != nil {
		return "", err
	}
	if err := checkClaims(token, pod); err != nil {
		return "", err
	}
	return token, nil
}

func pickToken(text string, audience volume.Audience) (string, error) {
	var tokens map[string]struct {
		Token string `json:"token"`
	}
	// The error of json may quote the token.
	if json.Unmarshal([]byte(text), &tokens) != nil {
		return "", fmt.Errorf("%w: what came is not a JSON object of tokens", errNoToken)
	}
	offered := slices.Sorted(maps.Keys(tokens))
	for _, name := range wanted(audience) {
		if token := tokens[name].Token; token != "" {
			return token, nil
		}
	}
	if audience.Chosen {
		return "", refuse("audience", "%q is not among the audiences that the CSIDriver's tokenRequests offer: %q", audience.Name, offered)
	}
	return "", fmt.Errorf("%w: the CSIDriver's tokenRequests offer neither the audience %q nor the API server's own; choose one of %q with the attribute audience", errNoToken, vaultAudience, offered)
}

func wanted(audience volume.Audience) []string {
	if audience.Chosen {
		return []string{audience.Name}
	}
	return []string{vaultAudience, ""}
}

// podClaims are what the API server writes into the token of a pod.
type podClaims struct {
	Kubernetes struct {
		Namespace string `json:"namespace"`
		Pod       struct {
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"pod"`
		ServiceAccount struct {
			Name string `json:"name"`
		} `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

// checkClaims holds a token against the pod that the kubelet names. Whether the
// token is genuine is for Vault to say; this keeps one pod's token from opening
// another pod's volume, should the two ever be mixed up on the way.
func checkClaims(token string, pod volumeContext) error {
	// Every algorithm that an API server may sign with.
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512, jose.PS256, jose.PS384, jose.PS512, jose.EdDSA})
	if err != nil {
		// The error may quote the token.
		return fmt.Errorf("%w: what came is not a signed JWT", errNoToken)
	}
	var claims podClaims
	if parsed.UnsafeClaimsWithoutVerification(&claims) != nil {
		return fmt.Errorf("%w: the claims of what came are no JSON", errNoToken)
	}
	got := claims.Kubernetes
	for _, claim := range []struct{ name, token, pod string }{
		{"namespace", got.Namespace, pod.namespace},
		{"pod", got.Pod.Name, pod.name},
		{"pod uid", got.Pod.UID, pod.uid},
		{"service account", got.ServiceAccount.Name, pod.serviceAccount},
	} {
		if claim.token != claim.pod {
			return fmt.Errorf("%w: the token is for the %s %q and the volume for %q", errNoToken, claim.name, claim.token, claim.pod)
		}
	}
	return nil
}
