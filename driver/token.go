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
	"github.com/vaultmount/vaultmount/provider/limits"
)

// vaultAudience is preferred where the CSIDriver offers it: a token for Vault is
// of no use to whoever steals it for the API server.
const vaultAudience = "vault"

// podTokens are what a volume shows Vault: the token that fits best, and the one to
// show if Vault does not take that for its audience, empty for none.
type podTokens struct{ primary, fallback string }

// chooseTokens takes the pod's tokens out of a request. Kubernetes 1.36 sends them
// among the secrets, where no user can plant one; older ones send them in the
// volume context, and replace what a user planted there.
//
// address is empty for the driver's own Vault. Any other is shown the API server's token
// only if the volume chooses it: who answers there could use it on the API server.
func chooseTokens(request *csi.NodePublishVolumeRequest, pod volumeContext, audience volume.Audience, address string) (podTokens, error) {
	text, inSecrets := request.GetSecrets()[keyTokens]
	inContext, planted := request.GetVolumeContext()[keyTokens]
	if inSecrets && planted {
		return podTokens{}, invalidAttribute(keyTokens, "is the kubelet's own and is not read from the attributes in this cluster; leave it out")
	}
	if !inSecrets {
		text = inContext
	}
	if text == "" {
		return podTokens{}, fmt.Errorf("%w: the CSIDriver object must have tokenRequests", errNoToken)
	}
	tokens, err := pickTokens(text, audience, address)
	if err != nil {
		return podTokens{}, err
	}
	if err := checkClaims(tokens.primary, pod); err != nil {
		return podTokens{}, err
	}
	if tokens.fallback == "" {
		return tokens, nil
	}
	return tokens, checkClaims(tokens.fallback, pod)
}

// pickTokens picks the one that the volume has chosen, or Vault's. A role may know
// nothing of that: the Agent shows the API server's, and where Vault has the API
// server review tokens with the very token that it was shown, no other will do.
func pickTokens(text string, audience volume.Audience, address string) (podTokens, error) {
	var tokens map[string]struct {
		Token string `json:"token"`
	}
	// The error of json may quote the token.
	if json.Unmarshal([]byte(text), &tokens) != nil {
		return podTokens{}, fmt.Errorf("%w: what came is not a JSON object of tokens", errNoToken)
	}
	switch forVault, forServer := tokens[vaultAudience].Token, tokens[""].Token; {
	case audience.Chosen && tokens[audience.Name].Token != "":
		return podTokens{primary: tokens[audience.Name].Token}, nil
	case audience.Chosen:
		return podTokens{}, invalidAttribute("audience", "%s is not among the audiences that the CSIDriver's tokenRequests offer: %s", quote(audience.Name), quoteList(slices.Sorted(maps.Keys(tokens))))
	case forVault != "" && address != "":
		return podTokens{primary: forVault}, nil
	case forVault != "":
		return podTokens{primary: forVault, fallback: forServer}, nil
	case forServer != "" && address != "":
		return podTokens{}, invalidAttribute("audience", "is missing: of the tokens that the CSIDriver's tokenRequests offer, the only one for Vault is the API server's own, and %s is not the driver's own Vault; set audience to \"\" to show it that token", limits.Truncate(address, quotedBytes))
	case forServer != "":
		return podTokens{primary: forServer}, nil
	}
	return podTokens{}, fmt.Errorf("%w: the CSIDriver's tokenRequests offer neither the audience %q nor the API server's own; choose one of %s with the attribute audience", errNoToken, vaultAudience, quoteList(slices.Sorted(maps.Keys(tokens))))
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
			return fmt.Errorf("%w: the token is for the %s %s and the volume for %s", errNoToken, claim.name, quote(claim.token), quote(claim.pod))
		}
	}
	return nil
}
