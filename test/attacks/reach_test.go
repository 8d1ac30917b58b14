package attacks

import (
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/test/rig"
)

// checkWritable requires that the refusal says which line to add.
func checkWritable(t *testing.T, a *arena) {
	t.Helper()
	s := a.newStage(t)
	request := s.tenantRequest(t, map[string]string{"template/a": "x"})
	request.Readonly = false
	err := s.Publish(t.Context(), request)
	if code := status.Code(err); code != codes.InvalidArgument && code != codes.FailedPrecondition || !strings.Contains(err.Error(), "readOnly: true") {
		t.Errorf("got %v, want a refusal that names readOnly: true", err)
	}
	rig.RequireNothing(t, request.GetTargetPath())
}

// checkRedirects has a Vault on the allow-list redirect to a server that is not: that
// one gets nothing, neither a token nor a request.
func checkRedirects(t *testing.T, a *arena) {
	t.Helper()
	s := a.newStage(t)
	reached := &record{}
	inner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached.add(fmt.Sprintf("%s %s with token %q", r.Method, r.URL.Path, r.Header.Get("X-Vault-Token")))
		answer(w, http.StatusOK, map[string]any{"AccessKeyId": "of the node's role"})
	}))
	defer inner.Close()
	s.rogue.handle(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/redirect/") {
			return false
		}
		http.Redirect(w, r, inner.URL+"/latest/meta-data", http.StatusTemporaryRedirect)
		return true
	})
	for name, attributes := range map[string]map[string]string{
		"read":  {"template/a": `{{ with secret "x/redirect/y" }}{{ .Data | toJSON }}{{ end }}`},
		"write": {"template/a": `{{ with secret "x/redirect/y" "a=b" }}{{ .Data | toJSON }}{{ end }}`},
		"login": {"auth-path": "auth/redirect/x", "template/a": `{{ with secret "kv/data/a" }}{{ end }}`},
	} {
		attributes["address"], attributes["client-max-retries"] = s.rogue.address, "0"
		request := s.tenantRequest(t, attributes)
		if err := s.Publish(t.Context(), request); err == nil {
			t.Errorf("%s: the volume is published", name)
		}
	}
	reached.requireNone(t)
}

// checkAudience has a Vault on the allow-list refuse all tokens: it never sees one that
// the API server takes.
func checkAudience(t *testing.T, a *arena) {
	t.Helper()
	s := a.newStage(t)
	shown := &record{}
	s.rogue.handle(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/login") {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		if claims := claimsIn(string(body)); strings.Contains(claims, rig.APIServerAudience) {
			shown.add(claims)
		}
		answer(w, http.StatusForbidden, map[string]any{"errors": []string{"permission denied"}})
		return true
	})
	for range 2 {
		request := s.tenantRequest(t, map[string]string{"address": s.rogue.address, "client-max-retries": "0", "template/a": `{{ with secret "kv/data/a" }}{{ end }}`})
		if err := s.Publish(t.Context(), request); err == nil {
			t.Error("the volume is published")
		}
	}
	shown.requireNone(t)
}

// claimsIn are those of the token in the body of a login.
func claimsIn(body string) string {
	found := regexp.MustCompile(`"jwt":"[^".]*\.([^".]*)\.`).FindStringSubmatch(body)
	if found == nil {
		return ""
	}
	claims, err := base64.RawURLEncoding.DecodeString(found[1])
	if err != nil {
		return ""
	}
	return string(claims)
}

// record collects what must not happen.
type record struct {
	mutex sync.Mutex
	all   []string
}

func (r *record) add(line string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.all = append(r.all, line)
}

func (r *record) requireNone(t *testing.T) {
	t.Helper()
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if len(r.all) > 0 {
		t.Errorf("this happened: %q", r.all)
	}
}

// checkErrors reads errors about paths that a template made from a secret: they become
// Events, which more people may read than the secret.
func checkErrors(t *testing.T, a *arena) {
	t.Helper()
	s := a.newStage(t)
	const value = "value-of-the-kubernetes-secret"
	s.Vault.Write(t, "internal/data/tenant/short", map[string]any{"data": map[string]any{"pin": "7k2", "long": value}})
	for name, test := range map[string]struct{ path, secret string }{
		"value":                 {`.Data.data.long`, value},
		"value in base64":       {`(base64Encode .Data.data.long)`, base64.StdEncoding.EncodeToString([]byte(value))},
		"value in upper case":   {`(toUpper .Data.data.long)`, strings.ToUpper(value)},
		"reversed value":        {`(sprig_join "" (sprig_reverse (sprig_splitList "" .Data.data.long)))`, reversed(value)},
		"short value":           {`.Data.data.pin`, "7k2"},
		"key of the Secret":     {`(file "/vault/custom/key")`, value},
		"hash of a Secret's":    {`(sprig_sha256sum (file "/vault/custom/key"))`, "3f"},
		"value in a query part": {`(printf "x?version=%s" .Data.data.long)`, value},
	} {
		t.Run(name, func(t *testing.T) {
			request := s.tenantRequest(t, map[string]string{
				"template/a": `{{ with secret "internal/data/tenant/short" }}{{ with secret (printf "internal/data/tenant/missing/%s" ` + test.path + `) }}{{ end }}{{ end }}`,
			})
			request.Secrets["key"] = value
			err := s.Publish(t.Context(), request)
			if err == nil || !strings.Contains(err.Error(), "internal") && !strings.Contains(err.Error(), "template") {
				t.Fatalf("got %v, want an error about the path", err)
			}
			if name != "hash of a Secret's" && strings.Contains(err.Error(), test.secret) {
				t.Errorf("the error shows the secret: %v", err)
			}
			if name == "hash of a Secret's" && regexp.MustCompile(`[0-9a-f]{64}`).MatchString(err.Error()) {
				t.Errorf("the error shows the hash: %v", err)
			}
		})
	}
}

func reversed(text string) string {
	runes := []rune(text)
	for i, j := 0, len(runes)-1; i < j; i, j = i+1, j-1 {
		runes[i], runes[j] = runes[j], runes[i]
	}
	return string(runes)
}

// checkWorkers requires that a process that has run a template of one namespace runs
// none of another.
func checkWorkers(t *testing.T, a *arena) {
	t.Helper()
	s := a.newStage(t)
	// It is over quickly, so that it does not get a process that slow ones have.
	const program = `{{ range loop 50000 }}{{ end }}{{ "a" | sprig_upper }}`
	for range 20 {
		s.MustPublish(t, s.tenantRequest(t, map[string]string{"template/a": program}))
	}
	used := s.workers(t)
	// One that has only started has taken less than 50 ms.
	maps.DeleteFunc(used, func(_, ticks int) bool { return ticks < 5 })
	if len(used) == 0 {
		t.Fatal("no process has run the tenant's templates")
	}
	for range 20 {
		s.MustPublish(t, s.request(t, victim, map[string]string{"template/a": program}))
	}
	for pid, ticks := range s.workers(t) {
		if before, ok := used[pid]; ok && before != ticks {
			t.Errorf("process %d has run templates of two namespaces", pid)
		}
	}
}

// workers are the driver's children, with the user time that each has taken, in units of
// 10 ms.
func (s *stage) workers(t *testing.T) map[int]int {
	t.Helper()
	all := map[int]int{}
	for _, pid := range s.Process.Children(t) {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended
		}
		_, fields, _ := strings.Cut(string(content), ") ") // the state is the first that follows the name
		all[pid], err = strconv.Atoi(strings.Fields(fields)[11])
		require.NoError(t, err)
	}
	return all
}
