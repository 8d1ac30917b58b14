package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// corpus is annotated pods: those of the translator's golden cases, those of the
// tutorial, and those that are run as well.
func corpus(t *testing.T) []*corev1.Pod {
	t.Helper()
	return slices.Concat(goldenPods(t), tutorialPods(t), runPods(t), []*corev1.Pod{largePod()})
}

// largePod is more than anybody has; the API server bounds what a policy may
// compute.
func largePod() *corev1.Pod {
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	pod.Name, pod.Namespace = "large", "default"
	const prefix = "vault.hashicorp.com/"
	pod.Annotations = map[string]string{prefix + "agent-inject": "true", prefix + "role": "internal-app"}
	for i := range 200 {
		pod.Annotations[fmt.Sprint(prefix, "agent-inject-template-", i)] = strings.Repeat("x", 1000)
		if i < 20 {
			pod.Annotations[fmt.Sprint(prefix, "secret-volume-path-", i)] = fmt.Sprint("/mnt/", i)
		}
	}
	var mounts []corev1.VolumeMount
	for i := range 10 {
		name := fmt.Sprint("data-", i)
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
		mounts = append(mounts, corev1.VolumeMount{Name: name, MountPath: "/" + name})
	}
	for i := range 10 {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: fmt.Sprint("app-", i), Image: "app", VolumeMounts: mounts})
	}
	return pod
}

func runPods(t *testing.T) []*corev1.Pod {
	t.Helper()
	var pods []*corev1.Pod
	printed := kubectl(t, "create", "--dry-run=client", "--output=json", "--filename=test/e2e/testdata/same-files.yaml")
	for decoder := json.NewDecoder(strings.NewReader(printed)); decoder.More(); {
		pod := &corev1.Pod{}
		require.NoError(t, decoder.Decode(pod))
		pod.Name, pod.Namespace = "run-"+pod.Name, "default"
		pods = append(pods, pod)
	}
	return pods
}

func goldenPods(t *testing.T) []*corev1.Pod {
	t.Helper()
	files, err := filepath.Glob("../../driver/injector/testdata/*/pod.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("find the golden cases: %v", err)
	}
	var pods []*corev1.Pod
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
		if err := yaml.UnmarshalStrict(text, pod); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		pod.Name = filepath.Base(filepath.Dir(file))
		pod.Namespace = "default"
		if pod.Name == "asks-system-namespace" {
			pod.Namespace, pod.Spec.ServiceAccountName = "kube-system", "default"
		}
		if pod.Spec.ServiceAccountName == "website" {
			pod.Spec.ServiceAccountName = "internal-app"
		}
		pods = append(pods, pod)
	}
	return pods
}

// tutorialPods are the pods of the tutorial's manifests, before and after its
// patches.
func tutorialPods(t *testing.T) []*corev1.Pod {
	t.Helper()
	steps := [][2]string{
		{"deployment-orgchart.yaml", ""},
		{"deployment-orgchart.yaml", "patch-inject-secrets.yaml"},
		{"deployment-orgchart.yaml", "patch-inject-secrets-as-template.yaml"},
		{"pod-payroll.yaml", ""},
		{"deployment-website.yaml", ""},
		{"deployment-website.yaml", "patch-website.yaml"},
		{"deployment-issues.yaml", ""},
		{"deployment-issues.yaml", "patch-issues.yaml"},
	}
	var pods []*corev1.Pod
	for i, step := range steps {
		file := "--filename=" + tutorialFile(step[0])
		text := kubectl(t, "create", "--dry-run=client", "--output=json", file)
		if step[1] != "" {
			text = kubectl(t, "patch", "--local", "--output=json", file, "--patch-file="+tutorialFile(step[1]))
		}
		pod := tutorialPod(t, text)
		pod.Name = fmt.Sprintf("tutorial-%d-%s", i, pod.Name)
		// The others are of the tutorial's own making.
		pod.Spec.ServiceAccountName = "internal-app"
		pod.Namespace = "default"
		pods = append(pods, pod)
	}
	return pods
}

// tutorialPod is the pod that a manifest asks for; a ServiceAccount may stand
// beside it.
func tutorialPod(t *testing.T, text string) *corev1.Pod {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	for {
		var object json.RawMessage
		if err := decoder.Decode(&object); err != nil {
			t.Fatalf("no pod in %s: %v", text, err)
		}
		var meta metav1.PartialObjectMetadata
		require.NoError(t, json.Unmarshal(object, &meta))
		pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
		switch meta.Kind {
		case "Pod":
			decode(t, object, pod)
			return pod
		case "Deployment":
			var deployment appsv1.Deployment
			decode(t, object, &deployment)
			pod.ObjectMeta, pod.Spec = deployment.Spec.Template.ObjectMeta, deployment.Spec.Template.Spec
			pod.Name = deployment.Name
			return pod
		}
	}
}

func decode(t *testing.T, text []byte, into any) {
	t.Helper()
	require.NoError(t, json.Unmarshal(text, into))
}

// admitted is what the API server makes of a pod: the pod, or why not.
type admitted struct {
	pod     *corev1.Pod
	refusal string
}

// admitUntranslated is what a webhook sees. A pod may mount a volume that it leaves
// to whoever translates it, which the API server takes from nobody else.
func admitUntranslated(t *testing.T, pods []*corev1.Pod) map[string]*corev1.Pod {
	t.Helper()
	var complete []*corev1.Pod
	for _, pod := range pods {
		pod = pod.DeepCopy()
		for _, name := range undeclared(pod) {
			pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
		}
		complete = append(complete, pod)
	}
	seen := map[string]*corev1.Pod{}
	for name, got := range admit(t, complete) {
		if got.pod == nil {
			t.Fatalf("%s is no pod: %s", name, got.refusal)
		}
		seen[name] = got.pod
	}
	for _, pod := range pods {
		missing := undeclared(pod)
		seen[pod.Name].Spec.Volumes = slices.DeleteFunc(seen[pod.Name].Spec.Volumes, func(v corev1.Volume) bool { return slices.Contains(missing, v.Name) })
		// The API server clears it when it stores the pod.
		seen[pod.Name].Status = pod.Status
	}
	return seen
}

func undeclared(pod *corev1.Pod) []string {
	var missing []string
	for name := range mountedNames(pod) {
		if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name }) {
			missing = append(missing, name)
		}
	}
	return missing
}

func mountedNames(pod *corev1.Pod) map[string]bool {
	mounted := map[string]bool{}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, m := range c.VolumeMounts {
			mounted[m.Name] = true
		}
	}
	return mounted
}

// admit creates all pods as a dry run, with one program.
func admit(t *testing.T, pods []*corev1.Pod) map[string]admitted {
	t.Helper()
	directory := t.TempDir()
	for _, pod := range pods {
		text, err := json.Marshal(pod)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(directory, pod.Name+".json"), text, 0o600))
	}
	printed, err := bed.Kubectl(t.Context(), "create", "--dry-run=server", "--output=json", "--filename="+directory)
	all := map[string]admitted{}
	// What the API server chooses by chance.
	printed = regexp.MustCompile(`kube-api-access-[a-z0-9]{5}`).ReplaceAllString(printed, "kube-api-access")
	for decoder := json.NewDecoder(strings.NewReader(printed)); decoder.More(); {
		pod := &corev1.Pod{}
		require.NoError(t, decoder.Decode(pod))
		pod.UID, pod.CreationTimestamp = "", metav1.Time{}
		all[pod.Name] = admitted{pod: pod}
	}
	if err == nil {
		return all
	}
	for line := range strings.Lines(err.Error()) {
		if found := regexp.MustCompile(`error when creating ".*/([^/]*)\.json": (.*)`).FindStringSubmatch(line); found != nil {
			all[found[1]] = admitted{refusal: found[2]}
		}
	}
	return all
}
