package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/cost"
	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/template"
)

func TestFrames(t *testing.T) {
	t.Parallel()
	var pipe bytes.Buffer
	payloads := []string{"", "a", strings.Repeat("x", 1000)}
	for _, payload := range payloads {
		if err := writeFrame(&pipe, []byte(payload), 1000); err != nil {
			t.Fatal(err)
		}
	}
	reader := iotest.OneByteReader(&pipe)
	for _, want := range payloads {
		if got, err := readFrame(reader, 1000); err != nil || string(got) != want {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if _, err := readFrame(reader, 1000); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if err := writeFrame(&pipe, make([]byte, 1001), 1000); reasonOf(err) != Output || pipe.Len() != 0 {
		t.Errorf("got %v, and %d bytes were written", err, pipe.Len())
	}
	for _, broken := range []string{"\x00", "\x00\x00\x00\x02x"} {
		if _, err := readFrame(strings.NewReader(broken), 1000); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v", broken, err)
		}
	}
}

// hostileCalls let a reply come past the first checks of CheckResult.
const hostileCalls = `{{ secret . "a=1" }}{{ pkiCert "b" . }}{{ secrets . }}{{ writeToFile . "" "1" . . }}{{ writeToFile "c" "" "" "0644" . }}`

// FuzzReply looks for bytes of a hostile worker that the parent cannot cope with, or
// that cost it more than in proportion.
func FuzzReply(f *testing.F) {
	f.Add([]byte(`{"Failure":"","Message":"","Result":{"Output":"QQ==","Missing":[{"Verb":"read","Path":"a"}],"Used":null}}`))
	f.Add([]byte(`{"Failure":"data","Message":"x"}`))
	f.Add([]byte(`{"Result":{"Missing":[{"Verb":"write","Path":"a","Arguments":"{\"a\":\"1\"}"}],"Files":[{"Path":"c","Content":"QQ==","UID":-1,"GID":-1,"Perms":420}]}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		var result template.Result
		var err error
		cost.Assert(t, len(payload), func() {
			if result, err = decodeReply(payload); err == nil {
				_ = template.CheckResult(file(hostileCalls), result)
			}
		})
		if err != nil && !errors.Is(err, errNonsense) && (limits.ErrorBytes.Check(len(err.Error())) != nil || errors.Unwrap(err) == nil || result.Output != nil) {
			t.Errorf("got %v", err)
		}
	})
}

// FuzzFrame looks for bytes on which either side hangs or reads too much.
func FuzzFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01x"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		var payload []byte
		var err error
		cost.Assert(t, len(sent), func() { payload, err = readFrame(bytes.NewReader(sent), 100) })
		if err == nil && (len(payload) > 100 || !bytes.HasPrefix(sent[headerSize:], payload)) {
			t.Errorf("%q became %q", sent, payload)
		}
	})
}

// FuzzRequest looks for a request that ends the worker that reads it.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"Pods":[{}],"Templates":[{"Name":"x","Text":"{{ secret \"a\" }}","PodIndex":0}],"Values":[{"Verb":"read","Path":"a","Secret":{"data":{"n":1.50}}}]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		cost.Assert(t, len(payload), func() { _, _, _ = decodeRequest(payload) })
	})
}

// Whatever a template can be given or give comes through the pipe as it went in,
// numbers in Vault's spelling and arguments of any bytes.
func TestMessagesLoseNothing(t *testing.T) {
	t.Parallel()
	write := template.NewWrite("transit/encrypt/x", map[string]string{"plaintext": "\x01<=", "a,b": "c.d"})
	pods := []template.Pod{{Environment: map[string]string{"POD_NAME": "a"}, SecretKeys: map[string]string{"k": "v"}}, {MountPath: "/b"}}
	templates := []template.Template{
		{Name: "a/b \"c\"", Text: "<&>\n", LeftDelim: "<<", RightDelim: ">>", ErrorOnMissingKey: true, Pod: pods[0]}, {Name: "b", Pod: pods[0]}, {Name: "c", Pod: pods[1]},
	}
	values := template.Values{
		write:                                  {Secret: &api.Secret{RequestID: "r", LeaseID: "l", LeaseDuration: 3, Renewable: true, Warnings: []string{"w"}, Auth: &api.SecretAuth{ClientToken: "t", Metadata: map[string]string{"a": "b"}}}},
		{Verb: template.Read, Path: "kv/é"}:    {Secret: &api.Secret{Data: map[string]any{"number": json.Number("1.50"), "large": json.Number("12345678901234567890"), "nil": nil, "list": []any{"<&>", json.Number("1")}, "empty": map[string]any{}}}},
		{Verb: template.List, Path: "names"}:   {Names: []string{"b", "a"}},
		{Verb: template.Read, Path: "nothing"}: {},
	}
	asked := newRequest(templates, values)
	if len(asked.Pods) != len(pods) {
		t.Errorf("%d pods are sent", len(asked.Pods))
	}
	payload, err := json.Marshal(asked)
	if err != nil {
		t.Fatal(err)
	}
	if got, known, err := decodeRequest(payload); err != nil || !reflect.DeepEqual(got, templates) || !reflect.DeepEqual(known, values) {
		t.Errorf("got  %+v, %+v, %v\nwant %+v, %+v", got, known, err, templates, values)
	}
	answered := reply{Result: template.Result{Output: []byte("\xff\x00<"), Missing: []template.Dependency{write}, Used: []template.Dependency{write, {Verb: template.List, Path: "x"}}}}
	if payload, err = json.Marshal(answered); err != nil {
		t.Fatal(err)
	}
	if got, err := decodeReply(payload); err != nil || !reflect.DeepEqual(got, answered.Result) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, answered)
	}
}

// What render's types get in future must be exported, or it would be lost between
// the processes.
func TestMessagesHoldWholeTypes(t *testing.T) {
	t.Parallel()
	seen := map[reflect.Type]bool{reflect.TypeFor[api.Secret](): true}
	var look func(reflect.Type)
	look = func(typ reflect.Type) {
		if seen[typ] {
			return
		}
		seen[typ] = true
		switch typ.Kind() {
		case reflect.Struct:
			for i := range typ.NumField() {
				if field := typ.Field(i); !field.IsExported() || field.Tag != "" {
					t.Errorf("%s.%s does not travel", typ, field.Name)
				}
				look(typ.Field(i).Type)
			}
		case reflect.Map:
			look(typ.Key())
			look(typ.Elem())
		case reflect.Pointer, reflect.Slice:
			look(typ.Elem())
		case reflect.Interface, reflect.Func, reflect.Chan:
			t.Errorf("%s does not travel", typ)
		}
	}
	look(reflect.TypeFor[request]())
	look(reflect.TypeFor[reply]())
}

// An error is the same text and kind as without a worker in between.
func TestErrorsTravel(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	for _, text := range []string{`{{ if }}`, `{{ nope }}`, `{{ file "/etc/shadow" }}`, `{{ secret "x" "y" }}`, `{{ "x" | parseInt }}`, `{{ index "x" 7 }}`, "{{ \"\xff\" | nope }}"} {
		_, want := template.Execute(file(text), nil)
		_, got := render(pool, t.Context(), file(text), nil)
		if got == nil || got.Error() != strings.ToValidUTF8(want.Error(), "\uFFFD") && got.Error() != want.Error() || errors.Is(got, template.ErrInvalid) != errors.Is(want, template.ErrInvalid) || errors.Is(got, template.ErrData) != errors.Is(want, template.ErrData) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	}
}

func TestLongErrorsAreShortened(t *testing.T) {
	t.Parallel()
	for _, text := range []string{strings.Repeat("x", limits.ErrorBytes.Max()+1), strings.Repeat("\xff", limits.ErrorBytes.Max()+1), "x" + strings.Repeat("é", limits.ErrorBytes.Max())} {
		payload, err := json.Marshal(newReply(template.Result{}, errors.New(text)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeReply(payload); !isReported(err) {
			t.Error(err)
		}
	}
}
