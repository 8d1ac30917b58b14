package driver

import (
	"encoding/base64"
	"maps"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/cost"
)

func bothTokens() string {
	return `{"":{"token":"` + podToken("api-server") + `","expirationTimestamp":"2030-01-01T00:00:00Z"},"vault":{"token":"` + podToken("vault") + `"}}`
}

func thePod() volumeContext {
	return volumeContext{namespace: "shop", name: "web", uid: "1-2-3", serviceAccount: "app"}
}

// podToken is an unsigned JWT of the pod, as far as the driver can tell.
func podToken(audience string) string {
	return tokenWith(`{"aud":["` + audience + `"],"kubernetes.io":{"namespace":"shop","pod":{"name":"web","uid":"1-2-3"},"serviceaccount":{"name":"app","uid":"4"}}}`)
}

func tokenWith(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256"}`)) + "." + encode([]byte(claims)) + "." + encode([]byte("signature"))
}

func TestChooseTokens(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		secrets, context string
		audience         volume.Audience
		address          string // of another Vault
		want             podTokens
		wantError        string
	}{
		"for Vault by preference":                 {secrets: bothTokens(), want: podTokens{podToken("vault"), podToken("api-server")}},
		"from the volume context":                 {context: bothTokens(), want: podTokens{podToken("vault"), podToken("api-server")}},
		"for Vault, alone":                        {secrets: `{"vault":{"token":"` + podToken("vault") + `"}}`, want: podTokens{primary: podToken("vault")}},
		"for Vault, chosen":                       {secrets: bothTokens(), audience: volume.Audience{Name: "vault", Chosen: true}, want: podTokens{primary: podToken("vault")}},
		"the API server's, chosen":                {secrets: bothTokens(), audience: volume.Audience{Chosen: true}, want: podTokens{primary: podToken("api-server")}},
		"the API server's, alone":                 {secrets: `{"":{"token":"` + podToken("api-server") + `"}}`, want: podTokens{primary: podToken("api-server")}},
		"another Vault":                           {secrets: bothTokens(), address: "https://other", want: podTokens{primary: podToken("vault")}},
		"the API server's, chosen, another Vault": {secrets: bothTokens(), address: "https://other", audience: volume.Audience{Chosen: true}, want: podTokens{primary: podToken("api-server")}},
		"the API server's, offered, another Vault": {
			secrets: `{"":{"token":"` + podToken("api-server") + `"}}`, address: "https://other",
			wantError: `https://other is not the driver's own Vault; set audience to "" to show it that token`,
		},
		"the other of another pod": {
			secrets:   `{"vault":{"token":"` + podToken("vault") + `"},"":{"token":"` + tokenWith(`{"kubernetes.io":{"namespace":"bank"}}`) + `"}}`,
			wantError: `the token is for the namespace "bank" and the volume for "shop"`,
		},
		"planted by a user": {
			secrets: bothTokens(), context: `{"vault":{"token":"canary"}}`,
			wantError: `volume attribute "csi.storage.k8s.io/serviceAccount.tokens": is the kubelet's own`,
		},
		"chosen and not offered": {
			secrets: bothTokens(), audience: volume.Audience{Name: "mars", Chosen: true},
			wantError: `volume attribute "audience": "mars" is not among the audiences that the CSIDriver's tokenRequests offer: ["" "vault"]`,
		},
		"nothing usual offered":       {secrets: `{"mars":{"token":"canary"}}`, wantError: `choose one of ["mars"] with the attribute audience`},
		"none":                        {wantError: "the CSIDriver object must have tokenRequests"},
		"not JSON":                    {secrets: `{"canary`, wantError: "not a JSON object of tokens"},
		"another shape":               {secrets: `{"vault":"canary"}`, wantError: "not a JSON object of tokens"},
		"empty":                       {secrets: `{}`, wantError: "choose one of []"},
		"not a JWT":                   {secrets: `{"vault":{"token":"canary"}}`, wantError: "not a signed JWT"},
		"claims not JSON":             {secrets: `{"vault":{"token":"` + tokenWith("canary") + `"}}`, wantError: "no JSON"},
		"of no pod":                   {secrets: `{"vault":{"token":"` + tokenWith("{}") + `"}}`, wantError: `the token is for the namespace "" and the volume for "shop"`},
		"of another pod of that name": {secrets: `{"vault":{"token":"` + tokenWith(`{"kubernetes.io":{"namespace":"shop","pod":{"name":"web","uid":"9"},"serviceaccount":{"name":"app"}}}`) + `"}}`, wantError: `the token is for the pod uid "9" and the volume for "1-2-3"`},
		"of another account":          {secrets: `{"vault":{"token":"` + tokenWith(`{"kubernetes.io":{"namespace":"shop","pod":{"name":"web","uid":"1-2-3"},"serviceaccount":{"name":"admin"}}}`) + `"}}`, wantError: `the token is for the service account "admin" and the volume for "app"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := &csi.NodePublishVolumeRequest{Secrets: map[string]string{}, VolumeContext: map[string]string{}}
			if test.secrets != "" {
				request.Secrets[keyTokens] = test.secrets
			}
			if test.context != "" {
				request.VolumeContext[keyTokens] = test.context
			}
			got, err := chooseTokens(request, thePod(), test.audience, test.address)
			if test.wantError != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantError) || strings.Contains(err.Error(), "canary") {
					t.Fatalf("got %v, want %s", err, test.wantError)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func FuzzChooseTokens(f *testing.F) {
	f.Add(bothTokens())
	f.Add(`{"vault":{"token":1}}`)
	f.Fuzz(func(t *testing.T, text string) {
		request := &csi.NodePublishVolumeRequest{Secrets: map[string]string{keyTokens: text}}
		var tokens podTokens
		var err error
		cost.Assert(t, len(text), func() { tokens, err = chooseTokens(request, thePod(), volume.Audience{}, "") })
		if err == nil && tokens.primary == "" {
			t.Fatal("there is no token, and no error")
		}
	})
}

func TestSplitContext(t *testing.T) {
	t.Parallel()
	got := splitContext(map[string]string{
		keyEphemeral: "true", keyPodName: "web", keyPodNamespace: "shop", keyServiceAccount: "app",
		keyTokens: bothTokens(), keyPodUID: "1-2-3", "role": "app",
	})
	if want := thePod(); !got.ephemeral || got.name != want.name || got.uid != want.uid || got.namespace != want.namespace || got.serviceAccount != want.serviceAccount {
		t.Errorf("pod info is lost: %+v", got)
	}
	if !maps.Equal(got.attributes, map[string]string{"role": "app"}) {
		t.Errorf("attributes are %v", got.attributes)
	}
}

func TestFileOwner(t *testing.T) {
	t.Parallel()
	type owner struct{ uid, gid int }
	ownerOf := func(asked volume.Owner, fsGroup string) (owner, error) {
		v, err := newVolume(&csi.NodePublishVolumeRequest{VolumeCapability: &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Mount{
			Mount: &csi.VolumeCapability_MountVolume{VolumeMountGroup: fsGroup},
		}}}, volumeContext{}, volume.Spec{Owner: asked}, 1)
		return owner{v.UID, v.GID}, err
	}
	tests := map[string]struct {
		owner   volume.Owner
		fsGroup string
		want    owner
	}{
		"root by default":    {volume.Owner{UID: -1, GID: -1}, "", owner{0, 0}},
		"as asked":           {volume.Owner{UID: 100, GID: 1000}, "", owner{100, 1000}},
		"fsGroup":            {volume.Owner{UID: -1, GID: -1}, "2000", owner{0, 2000}},
		"fsGroup before gid": {volume.Owner{UID: 100, GID: 1000}, "2000", owner{100, 2000}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ownerOf(test.owner, test.fsGroup)
			if err != nil || got != test.want {
				t.Errorf("got %v, %v; want %v", got, err, test.want)
			}
		})
	}
	if _, err := ownerOf(volume.Owner{}, "staff"); err == nil {
		t.Error("a group that is no number is accepted")
	}
}
