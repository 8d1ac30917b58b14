package injector

import (
	"slices"
	"strings"
)

// class is how near a translated pod comes to an injected one.
type class string

const (
	honoured        class = "H" // exactly
	inDriverTerms   class = "D" // the same purpose, by the driver's means
	warnedAbout     class = "W" // without a meaning where there is no agent
	refusedOutright class = "R"
)

// row is one annotation. A name that ends in -X or -Y stands for a family, one
// annotation for each file or setting.
type row struct {
	names []string
	class class
	// treat checks one value. It is nil where the annotation is read together with
	// others: by files, volumes, mounts, login or owner.
	treat treatment
	// quiet says in words which values neither change the pod nor cause a diagnostic.
	quiet string
}

// rows are all annotations that the injector reads, in the order of its
// documentation's subjects.
func rows() []row {
	return slices.Concat(podRows(), fileRows(), loginRows(), connectionRows(), renderingRows(), identityRows(), agentRows())
}

func podRows() []row {
	return []row{
		{[]string{nameInject}, honoured, nil, "the switch itself"},
		{[]string{nameStatus}, honoured, nil, "any value; the mark is set in the end"},
		{[]string{nameContainers}, honoured, nil, "the names of all containers"},
		{[]string{nameVolumePath}, honoured, nil, "`/vault/secrets`"},
		{[]string{nameDefaultTemplate}, honoured, nil, "`map`"},
		{[]string{namePreserveCase}, honoured, checked(checkBool, silent()), "any, if no X has a capital letter or all have agent-inject-file-X"},
		{[]string{nameShareProcesses}, honoured, checked(checkBool, silent()), "`false`; `true` if the pod says so too"},
		{[]string{nameRequestNamespace}, warnedAbout, checkNamespace, "the pod's namespace"},
		{[]string{nameConfigMap}, refusedOutright, unless(refused("cannot be honoured; move its templates to agent-inject-template-FILE"), ""), "empty"},
	}
}

func fileRows() []row {
	return []row{
		{[]string{familySecret + "X"}, honoured, nil, "any, beside agent-inject-template-X or agent-inject-template-file-X"},
		{[]string{familyTemplate + "X"}, honoured, nil, ""},
		{[]string{familyTemplateFile + "X"}, inDriverTerms, nil, ""},
		{[]string{familyFile + "X"}, honoured, nil, "the name that the file has without it"},
		{[]string{familyPerms + "X"}, honoured, nil, "`0644`"},
		{[]string{familyCommand + "X"}, refusedOutright, nil, ""},
		{[]string{familyMissingKey + "X"}, honoured, nil, "`false`"},
		{[]string{familyLeftDelim + "X", familyRightDelim + "X"}, honoured, nil, "`{{`, `}}` without agent-inject-template-X"},
		{[]string{familyVolumePath + "X"}, honoured, nil, "the path of secret-volume-path"},
		{[]string{familyPreserveCase + "X"}, honoured, checked(checkBool, silent()), "any, if X has no capital letter or has agent-inject-file-X"},
		{[]string{nameToken}, inDriverTerms, checked(checkBool, unlessFalse(checkToken)), "`false`"},
	}
}

func loginRows() []row {
	return []row{
		{[]string{nameRole}, honoured, nil, ""},
		{[]string{nameAuthType}, honoured, checkAuthType, "`kubernetes`"},
		{[]string{nameAuthPath}, honoured, nil, "the default"},
		{[]string{familyAuthConfig + "Y"}, inDriverTerms, checkAuthConfig, "token-path of the pod's own token with auth-type kubernetes"},
		{[]string{nameAuthMinBackoff}, inDriverTerms, checked(checkDuration, unless(emitWithin(nameAuthMinBackoff, shortestBackoff, longestBackoff), "1s")), "`1s`"},
		{[]string{nameAuthMaxBackoff}, inDriverTerms, checked(checkDuration, unless(emitWithin(nameAuthMaxBackoff, shortestBackoff, longestBackoff), "5m")), "`5m`"},
		{[]string{"agent-auto-auth-exit-on-err"}, warnedAbout, checked(checkBool, unlessFalse(moot("a failed login keeps the pod from starting, and the kubelet tries again; remove it"))), "`false`"},
		{[]string{nameTokenVolume}, inDriverTerms, nil, "empty"},
	}
}

// match is a name under the prefix, recognised.
type match struct {
	row row
	// family and suffix are the two parts of a name of a family.
	family, suffix string
}

// find returns the row of a name, and what stands there for X or Y.
func find(all []row, name string) (found match, ok bool) {
	if name == familyTemplateFile {
		return match{}, false // not the template of a file "file-"
	}
	for _, row := range all {
		for _, candidate := range row.names {
			family, isFamily := familyOf(candidate)
			if candidate == name && !isFamily {
				return match{row: row}, true
			}
			// agent-inject-template-file-X is of the longer of two families.
			suffix, matches := strings.CutPrefix(name, family)
			if isFamily && matches && suffix != "" && len(family) > len(found.family) {
				found, ok = match{row, family, suffix}, true
			}
		}
	}
	return found, ok
}

func familyOf(name string) (string, bool) {
	if strings.HasSuffix(name, "-X") || strings.HasSuffix(name, "-Y") {
		return name[:len(name)-1], true
	}
	return name, false
}

func (r *reading) treatRows() {
	for _, name := range r.sorted {
		if treat := r.matches[name].row.treat; treat != nil {
			treat(r, name, r.values[name])
		}
	}
}
