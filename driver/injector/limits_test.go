package injector

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/cost"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// asking returns a pod with one container that asks for one file, and for what is
// added.
func asking(added map[string]string) PodInfo {
	var pod PodInfo
	pod.Metadata.Annotations = map[string]string{}
	for name, value := range map[string]string{nameInject: "true", nameRole: "app", familySecret + "a": "kv/data/a"} {
		pod.Metadata.Annotations[DefaultPrefix+name] = value
	}
	for name, value := range added {
		pod.Metadata.Annotations[DefaultPrefix+name] = value
	}
	pod.Spec.Containers = []PodContainer{{Name: "app"}}
	return pod
}

// numbered returns n annotations.
func numbered(n int, family, value string) map[string]string {
	all := map[string]string{}
	for i := range n {
		all[fmt.Sprint(family, i)] = value
	}
	return all
}

func sizeOf(pod PodInfo) int {
	size := 0
	for key, value := range pod.Metadata.Annotations {
		size += len(key) + len(value)
	}
	return size
}

func TestLimits(t *testing.T) {
	for _, test := range []struct {
		name  string
		limit limits.Limit
		pod   func(n int) PodInfo
	}{
		{"number of annotations", limits.Annotations, func(n int) PodInfo {
			return asking(numbered(n-3, familyTelemetry, "1"))
		}},
		{"name of an annotation", limits.AnnotationNameBytes, func(n int) PodInfo {
			return asking(map[string]string{familySecret + strings.Repeat("x", n-len(familySecret)): "kv/data/x"})
		}},
		{"all annotations", limits.AnnotationsBytes, func(n int) PodInfo {
			pod := asking(map[string]string{familyTemplate + "a": ""})
			pod.Metadata.Annotations[DefaultPrefix+familyTemplate+"a"] = strings.Repeat("x", n-sizeOf(pod))
			return pod
		}},
		{"files", limits.Files, func(n int) PodInfo {
			return asking(numbered(n-1, familySecret, "kv/data/x"))
		}},
		{"path of a file", limits.FilePathBytes, func(n int) PodInfo {
			path := strings.Repeat("x/", 2) + strings.Repeat(strings.Repeat("x", 200)+"/", 4)
			return asking(map[string]string{familyFile + "a": path + strings.Repeat("x", n-len(path))})
		}},
		{"directories of a file", limits.DirectoryDepth, func(n int) PodInfo {
			return asking(map[string]string{familyFile + "a": strings.Repeat("x/", n) + "x"})
		}},
		{"path of a volume", limits.FilePathBytes, func(n int) PodInfo {
			return asking(map[string]string{nameVolumePath: "/" + strings.Repeat("x", n-1)})
		}},
		{"path of a template file", limits.FilePathBytes, func(n int) PodInfo {
			slashes := strings.Repeat("/", n-len("/vault/customkey"))
			return asking(map[string]string{familyTemplateFile + "b": "/vault/custom" + slashes + "key", nameExtraSecret: "extra"})
		}},
		{"volumes of a pod", limits.PodVolumes, func(n int) PodInfo {
			all := numbered(n-1, familySecret, "kv/data/x")
			for i := range n - 1 {
				all[fmt.Sprint(familyVolumePath, i)] = fmt.Sprint("/secrets-", i)
			}
			return asking(all)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			pod := test.pod(test.limit.Max())
			if got := (Translator{}).Translate(pod, "default"); got.Decision != Translate || len(got.Volumes) == 0 {
				t.Errorf("at the limit: %s %v", got.Decision, got.Errors)
			}
			if _, _, err := (Translator{}).TranslateVolume(passthrough(Translator{}, pod, pathOf(pod)), "default"); err != nil {
				t.Errorf("at the limit, in a volume: %v", err)
			}
			pod = test.pod(test.limit.Max() + 1)
			got := Translator{}.Translate(pod, "default")
			if got.Decision != Reject || len(got.Errors) != 1 || !strings.Contains(got.Errors[0].Text, "("+test.limit.String()+")") {
				t.Errorf("one above the limit: %s %v", got.Decision, got.Errors)
			}
			_, _, err := Translator{}.TranslateVolume(passthrough(Translator{}, pod, pathOf(pod)), "default")
			var wrong *volume.AttributeError
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), "("+test.limit.String()+")") {
				t.Errorf("one above the limit, in a volume: %v", err)
			}
		})
	}
}

func pathOf(pod PodInfo) string {
	if path, present := pod.Metadata.Annotations[DefaultPrefix+nameVolumePath]; present {
		return path
	}
	return volume.DefaultMountPath
}

func TestLimitOfMounts(t *testing.T) {
	t.Parallel()
	for name, fill := range map[string]func(pod *PodInfo, n int){
		"of many containers": func(pod *PodInfo, n int) {
			for i := range n - 1 {
				pod.Spec.Containers = append(pod.Spec.Containers, PodContainer{Name: fmt.Sprint("c-", i)})
			}
		},
		"of an init container": func(pod *PodInfo, n int) {
			pod.Spec.InitContainers = []PodContainer{{Name: "init", VolumeMounts: make([]PodMount, n-2)}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := asking(nil)
			fill(&pod, limits.PodMounts.Max())
			if got := (Translator{}).Translate(pod, "default"); got.Decision != Translate || mountsOf(got) == 0 {
				t.Errorf("at the limit: %s %v", got.Decision, got.Errors)
			}
			pod = asking(nil)
			fill(&pod, limits.PodMounts.Max()+1)
			if got := (Translator{}).Translate(pod, "default"); got.Decision != Reject || !strings.Contains(got.Errors[0].Text, "(pod-mounts)") {
				t.Errorf("one above the limit: %s %v", got.Decision, got.Errors)
			}
		})
	}
}

// mountsOf counts the mounts that a patch adds.
func mountsOf(result Result) int {
	count := 0
	for _, o := range result.Patch {
		if strings.Contains(o.Path, "/volumeMounts") {
			count++
		}
	}
	return count
}

func TestDiagnosticsAreLimited(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name                            string
		added                           map[string]string
		refusals, warnings, more        int
		volumeErrorContains, translator string
	}{
		{name: "warnings at the limit", added: numbered(20, familyTelemetry, "1"), warnings: 20},
		{name: "warnings above the limit", added: numbered(23, familyTelemetry, "1"), warnings: 20, more: 3},
		{name: "refusals at the limit", added: numbered(20, familyPerms, "9"), refusals: 20, volumeErrorContains: ", and 16 more"},
		{name: "refusals above the limit", added: numbered(500, familyPerms, "9"), refusals: 20, more: 480, volumeErrorContains: ", and 496 more"},
		{name: "refusals before warnings", added: merged(numbered(15, familyPerms, "9"), numbered(15, familyTelemetry, "1")), refusals: 15, warnings: 5, more: 10, volumeErrorContains: "rejected as well"},
		{name: "unknown names", added: numbered(100, "-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-", ""), warnings: 20, more: 80},
		{name: "several for one annotation", added: map[string]string{nameContainers: strings.Repeat("x,", 10) + strings.Join(strings.Split("abcdefghijklmnopqrstuvwyz", ""), ",")}, refusals: 20},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := Translator{}.Translate(asking(test.added), "default")
			if len(got.Errors) != test.refusals || len(got.Warnings) != test.warnings || got.More != test.more {
				t.Errorf("%d refusals, %d warnings and %d more, want %d, %d and %d", len(got.Errors), len(got.Warnings), got.More, test.refusals, test.warnings, test.more)
			}
			if test.volumeErrorContains == "" {
				return
			}
			_, _, err := Translator{}.TranslateVolume(passthrough(Translator{}, asking(test.added), volume.DefaultMountPath), "default")
			if err == nil || !strings.Contains(err.Error(), test.volumeErrorContains) {
				t.Errorf("in a volume: %v", err)
			}
		})
	}
}

func merged(a, b map[string]string) map[string]string {
	for key, value := range b {
		a[key] = value
	}
	return a
}

// Each of these took seconds, or gigabytes, for a few hundred kilobytes or less.
func TestHostilePodsCostInProportionToTheirSize(t *testing.T) {
	const much = 250 << 10
	for _, test := range []struct {
		name string
		pod  func() PodInfo
	}{
		{"a name of dashes", func() PodInfo { return asking(map[string]string{strings.Repeat("-x", 16<<10): "1"}) }},
		{"many names of dashes", func() PodInfo { return asking(numbered(3000, strings.Repeat("-x", 28), "1")) }},
		{"bad templates", func() PodInfo { return asking(numbered(3200, familyTemplate, "{{x}}")) }},
		{"bad templates within the limits", func() PodInfo { return asking(numbered(499, familyTemplate, "{{x}}")) }},
		{"bad permissions", func() PodInfo {
			return asking(merged(numbered(499, familyTemplate, "x"), numbered(499, familyPerms, "9")))
		}},
		{"permissions of no file", func() PodInfo {
			all := numbered(499, familySecret+strings.Repeat("x", 35), "kv/x")
			for i := range 3000 {
				all[fmt.Sprintf("%s%s%d", familyPerms, strings.Repeat("y", 35), i)] = "9"
			}
			return asking(all)
		}},
		{"a long path of a file", func() PodInfo { return asking(map[string]string{familyFile + "a": strings.Repeat("a/", much/2)}) }},
		{"deep paths", func() PodInfo {
			all := map[string]string{}
			for i := range 200 {
				all[fmt.Sprint(familySecret, i)], all[fmt.Sprint(familyFile, i)] = "kv", strings.Repeat("a/", 500)+fmt.Sprint(i)
			}
			return asking(all)
		}},
		{"deep mount paths", func() PodInfo {
			all := map[string]string{}
			for i := range 200 {
				all[fmt.Sprint(familySecret, i)], all[fmt.Sprint(familyVolumePath, i)] = "kv", strings.Repeat("/a", 500)+fmt.Sprint(i)
			}
			return asking(all)
		}},
		{"many settings of a login", func() PodInfo { return asking(numbered(4000, familyAuthConfig, "x")) }},
		{"a quantity with an exponent", func() PodInfo { return asking(map[string]string{"agent-limits-mem": "1e-10000000"}) }},
		{"a long default of all files", func() PodInfo {
			all := numbered(499, familySecret, "a\"b")
			all[nameDefaultTemplate], all[nameVolumePath], all[namePreserveCase] = strings.Repeat("x", 50<<10), strings.Repeat("/", 50<<10), strings.Repeat("x", 50<<10)
			all[nameExtraSecret] = strings.Repeat("x", 50<<10)
			return asking(all)
		}},
		{"names of containers", func() PodInfo {
			pod := asking(map[string]string{nameContainers: strings.Repeat("x,", much/2)})
			pod.Spec.Containers = make([]PodContainer, 20000)
			return pod
		}},
		{"volumes in containers", func() PodInfo {
			all := map[string]string{}
			for i := range 400 {
				all[fmt.Sprint(familySecret, i)], all[fmt.Sprint(familyVolumePath, i)] = "kv", fmt.Sprint("/p", i)
			}
			pod := asking(all)
			for i := range 20000 {
				pod.Spec.Containers = append(pod.Spec.Containers, PodContainer{Name: fmt.Sprint(i)})
			}
			return pod
		}},
		{"tokens in containers", func() PodInfo {
			pod := asking(map[string]string{familyAuthConfig + "token-path": "/nowhere", nameTokenVolume: "x"})
			for i := range 20000 {
				pod.Spec.Volumes = append(pod.Spec.Volumes, PodVolume{Name: fmt.Sprint(i)})
			}
			pod.Spec.Containers[0].VolumeMounts = make([]PodMount, 20000)
			return pod
		}},
		{"copied mounts", func() PodInfo {
			all := numbered(400, familyTemplateFile, strings.Repeat("/a", 200))
			all["agent-copy-volume-mounts"] = "app"
			pod := asking(all)
			for i := range 4000 {
				pod.Spec.Containers[0].VolumeMounts = append(pod.Spec.Containers[0].VolumeMounts, PodMount{MountPath: fmt.Sprint("/", i)})
			}
			return pod
		}},
		{"calls of file", func() PodInfo {
			return asking(map[string]string{familyTemplate + "a": strings.Repeat(`file "/vault/custom/`, much/21)})
		}},
		{"blanks behind a path", func() PodInfo {
			return asking(map[string]string{familyTemplate + "a": `{{/* file */}}` + strings.Repeat(`"/vault/custom/a"`+strings.Repeat(" ", 1000), much/1020)})
		}},
		{"a JSON patch", func() PodInfo {
			return asking(map[string]string{nameInitPatch: "[" + strings.Repeat(`{"op":"test"},`, much/15) + `{"op":"test"}]`})
		}},
		{"a telemetry setting", func() PodInfo { return asking(map[string]string{familyTelemetry + "a": strings.Repeat("[", much)}) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := test.pod()
			translator := Translator{}
			size := min(sizeOf(pod), limits.AnnotationsBytes.Max()) + 30*(len(pod.Spec.Containers)+len(pod.Spec.Volumes)+len(pod.Spec.Containers[0].VolumeMounts))
			cost.Assert(t, size, func() {
				translator.Translate(pod, "default")
			})
			attributes := passthrough(translator, pod, volume.DefaultMountPath)
			cost.Assert(t, size, func() { _, _, _ = translator.TranslateVolume(attributes, "default") })
			used := cost.Measure(func() { translator.Translate(pod, "default") })
			t.Logf("%d bytes: CPU %s, %d KiB", sizeOf(pod), used.CPU, used.Allocated>>10)
		})
	}
}
