package faults

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/vaultmount/vaultmount/test/rig"
)

// goodAnnotations are those of a pod that would be translated. One of somebody else
// holds a canary.
func goodAnnotations() map[string]string {
	return map[string]string{
		prefix + "agent-inject": "true", prefix + "role": rig.Role, prefix + "agent-inject-secret-a": "old/app",
		"example.com/password": secretCanary,
	}
}

// podWith is the JSON of a pod.
func podWith(annotations map[string]string) string {
	text, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": "app", "namespace": "default", "annotations": annotations},
		"spec": map[string]any{"serviceAccountName": rig.Role, "containers": []any{map[string]any{
			"name": "app", "image": "app", "env": []any{map[string]string{"name": "PASSWORD", "value": secretCanary}},
		}}},
	})
	if err != nil {
		panic(err) // strings alone
	}
	return string(text)
}

// reviewOf is the review of a new pod, its object as it is.
func reviewOf(object string) string {
	return envelope("admission.k8s.io/v1", "AdmissionReview", requestOf(object))
}

func requestOf(object string) string {
	return `{"uid":"a-uid","kind":{"group":"","version":"v1","kind":"Pod"},"namespace":"default","name":"app","operation":"CREATE","object":` + object + `}`
}

func envelope(version, kind, request string) string {
	return fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"request":%s}`, version, kind, request)
}

// badBodies are no reviews at all.
func badBodies() []badReview {
	good := reviewOf(podWith(goodAnnotations()))
	utf16 := strings.Join(strings.Split(good, ""), "\x00")
	content := func(kind string) map[string]string { return map[string]string{"Content-Type": kind} }
	return []badReview{
		{name: "body: empty"},
		{name: "body: spaces", body: " \n\t "},
		{name: "body: no JSON", body: secretCanary},
		{name: "body: YAML", body: "kind: AdmissionReview\npassword: " + secretCanary},
		{name: "body: null", body: "null"},
		{name: "body: a string", body: `"` + secretCanary + `"`},
		{name: "body: a number", body: "42"},
		{name: "body: a list", body: "[" + good + "]"},
		{name: "body: an empty object", body: "{}"},
		{name: "body: cut off in the review", body: good[:60]},
		{name: "body: cut off in an annotation", body: good[:strings.Index(good, secretCanary)+5]},
		{name: "body: cut off before its last brace", body: good[:len(good)-1]},
		{name: "body: two reviews", body: good + good},
		{name: "body: a comma too many", body: strings.Replace(good, `"a-uid",`, `"a-uid",,`, 1)},
		{name: "body: single quotes", body: strings.ReplaceAll(good, `"`, `'`)},
		{name: "body: a byte order mark", body: "\xef\xbb\xbf" + good},
		{name: "body: UTF-16", body: utf16},
		{name: "body: zeros", body: strings.Repeat("\x00", 1000)},
		{name: "body: protobuf", body: "k8s\x00\n\x1e\n\x14admission.k8s.io/v1"},
		{name: "body: compressed", body: "\x1f\x8b\x08\x00\x00\x00", headers: map[string]string{"Content-Encoding": "gzip"}},
		{name: "body: deep lists", body: strings.Repeat("[", 1<<20)},
		{name: "body: deep objects", body: strings.Repeat(`{"request":`, 100000)},
		{name: "body: a byte over the limit", body: good + strings.Repeat(" ", 8<<20+1-len(good))},
		{name: "content type: none", body: good, headers: content("")},
		{name: "content type: YAML", body: good, headers: content("application/yaml")},
		{name: "content type: protobuf", body: good, headers: content("application/vnd.kubernetes.protobuf")},
		{name: "content type: a form", body: good, headers: content("application/x-www-form-urlencoded")},
		{name: "content type: nonsense", body: good, headers: content(";;;")},
		{name: "method: GET", method: "GET"},
		{name: "method: PUT", method: "PUT", body: good},
		{name: "path: another", path: "/validate", body: good},
		{name: "path: the root", path: "/", body: good},
	}
}

// badEnvelopes are reviews of another kind, or with a request that is none.
func badEnvelopes() []badReview {
	request := requestOf(podWith(goodAnnotations()))
	const group, kind = "admission.k8s.io/v1", "AdmissionReview"
	with := func(name, from, to string) badReview {
		return badReview{name: "review: " + name, body: strings.Replace(envelope(group, kind, request), from, to, 1)}
	}
	return []badReview{
		{name: "review: of another kind", body: envelope(group, "ConversionReview", request)},
		{name: "review: kind in lower case", body: envelope(group, "admissionreview", request)},
		{name: "review: a pod", body: podWith(goodAnnotations())},
		{name: "review: version of the future", body: envelope("admission.k8s.io/v2", kind, request)},
		{name: "review: version of another group", body: envelope("apps/v1", kind, request)},
		{name: "review: version without a group", body: envelope("v1", kind, request)},
		{name: "review: version of a megabyte", body: envelope(strings.Repeat("v", 1<<20), kind, request)},
		{name: "review: version with a line break", body: envelope("v1\nI0101 forged", kind, request)},
		with("no version", `"apiVersion":"admission.k8s.io/v1",`, ""),
		with("no kind", `"kind":"AdmissionReview",`, ""),
		with("keys in another case", `"request"`, `"Request"`),
		{name: "review: no request", body: `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`},
		{name: "review: request is null", body: envelope(group, kind, "null")},
		{name: "review: request is a list", body: envelope(group, kind, "["+request+"]")},
		{name: "review: request is a string", body: envelope(group, kind, `"`+secretCanary+`"`)},
		{name: "review: request is twice there, then null", body: strings.TrimSuffix(envelope(group, kind, request), "}") + `,"request":null}`},
		{name: "review: an answer alone", body: `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"a-uid","allowed":true}}`},
		with("uid is a number", `"a-uid"`, "42"),
		with("kind is a string", `{"group":"","version":"v1","kind":"Pod"}`, `"Pod"`),
		with("operation is a list", `"CREATE"`, `["CREATE"]`),
		with("no kind of the object", `"kind":{"group":"","version":"v1","kind":"Pod"},`, ""),
		with("no operation", `"operation":"CREATE",`, ""),
		with("operation in lower case", `"CREATE"`, `"create"`),
		with("of a pod's status", `"namespace"`, `"subResource":"status","namespace"`),
	}
}

// badPods are objects that are no pods, under the name of one.
func badPods() []badReview {
	pod := podWith(goodAnnotations())
	object := func(name, object string) badReview { return badReview{name: "object: " + name, body: reviewOf(object)} }
	with := func(name, from, to string) badReview { return object(name, strings.Replace(pod, from, to, 1)) }
	annotations := pod[strings.Index(pod, `"annotations":`)+len(`"annotations":`) : strings.Index(pod, `},"name"`)+1]
	inject := `"` + prefix + `agent-inject":"true"`
	return []badReview{
		{name: "object: absent", body: strings.Replace(reviewOf("0"), `,"object":0`, "", 1)},
		object("null", "null"),
		object("a string", `"`+secretCanary+`"`),
		object("a number", "42"),
		object("a list", "["+pod+"]"),
		object("empty", "{}"),
		object("deep", strings.Repeat(`{"spec":`, 9000)+"1"+strings.Repeat("}", 9000)),
		with("metadata is a string", `"metadata":{`, `"metadata":"`+secretCanary+`","spare":{`),
		with("annotations are a list", annotations, `["`+secretCanary+`"]`),
		with("annotations are a string", annotations, `"`+secretCanary+`"`),
		with("an annotation is a bool", inject, `"`+prefix+`agent-inject":true`),
		with("an annotation is a number", `"`+rig.Role+`"`, "42"),
		with("an annotation is an object", `"`+rig.Role+`"`, `{"name":"`+secretCanary+`"}`),
		with("an annotation is null", inject, `"`+prefix+`agent-inject":null`),
		with("an annotation is twice there", inject, inject+`,"`+prefix+`agent-inject":"maybe"`),
		with("a key in another case", `"annotations"`, `"Annotations"`),
		with("spec is a list", `"spec":{`, `"spec":[],"spare":{`),
		with("containers are an object", `"containers":[`, `"containers":{},"spare":[`),
		with("a container is a string", `"containers":[`, `"containers":["`+secretCanary+`",`),
		with("volumes are a string", `"spec":{`, `"spec":{"volumes":"`+secretCanary+`",`),
	}
}

// badAnnotationsOfPods are pairs as badAnnotations are, with what the webhook alone
// can get: the API server lets no more through to the driver.
func badAnnotationsOfPods() [][]string {
	return [][]string{
		{"agent-inject", "\x01"}, {"agent-inject", strings.Repeat("true", 1000)}, {"role", "a\nb"},
		{"agent-inject-secret-a/b", "old/app"}, {"agent-inject-secret-..data", "old/app"},
		{"agent-inject-perms-a", "-1"}, {"secret-volume-path", "/"}, {"secret-volume-path-a", "../x"},
		{"agent-inject-containers", "nobody"}, {"agent-run-as-user", "-1"}, {"agent-run-as-group", "staff"}, {"agent-pre-populate", "maybe"}, {"agent-pre-populate-only", "maybe"},
		{"agent-init-first", "maybe"}, {"agent-set-security-context", "maybe"}, {"agent-inject-token", "maybe"}, {"tls-secret", "../x"}, {"ca-key", "/x"}, {"auth-config-role-id", secretCanary},
	}
}
