package component

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/test/rig"
)

func TestTemplateOfTheVolumesSecret(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	secret := map[string]string{"db.tmpl": connectionTemplate, "broken.tmpl": "{{ with", "other.tmpl": `[[ with secret "old/app" ]][[ .Data.name ]][[ end ]]`}
	n.requirePublished(t, "whole", map[string]string{"template/a": rig.Absent, "template-key/a": "db.tmpl"}, secret)
	got, err := n.publish(t, "delimiters", map[string]string{"template/a": rig.Absent, "template-key/a": "other.tmpl", "left-delim/a": "[[", "right-delim/a": "]]"}, secret)
	if err != nil || got != "value" {
		t.Errorf("got %q, %v", got, err)
	}
	for key, want := range map[string]string{
		"broken.tmpl": `file "a"`,
		"typo.tmpl":   `volume attribute "template-key/a": names the key "typo.tmpl", which the Secret of csi.nodePublishSecretRef lacks`,
	} {
		_, err := n.publish(t, strings.TrimSuffix(key, ".tmpl"), map[string]string{"template/a": rig.Absent, "template-key/a": key}, secret)
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", key, err)
		}
	}
}
