package template

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// denialReason returns why a function is denied; empty if it is not.
func denialReason(name string) string {
	for _, group := range deniedGroups() {
		if slices.Contains(strings.Fields(group.functions), name) {
			return group.why
		}
	}
	return ""
}

func isAvailable(name string) bool {
	bare, isSprig := strings.CutPrefix(name, sprigPrefix)
	return isSprig && slices.Contains(sprigFunctions(), bare) || slices.Contains(overriddenFunctions(), name) ||
		slices.Contains(allowedFunctions(), name) || slices.Contains(builtinFunctions(), name)
}

// overriddenFunctions are this package's own. Those of consul-template ask Vault with a
// goroutine and process-wide settings for each secret, or read the host.
func overriddenFunctions() []string {
	return strings.Fields(`env envOrDefault file loop mustEnv pkiCert secret secrets writeToFile`)
}

// allowedFunctions are consul-template's own. A test compares them with its source, so
// that somebody reviews a new function before it is allowed.
func allowedFunctions() []string {
	return strings.Fields(`
		add base64Decode base64Encode base64URLDecode base64URLEncode byKey byMeta byPort byTag
		contains containsAll containsAny containsNone containsNotAll divide executeTemplate
		explode explodeMap hmacSHA256Hex in indent join maximum md5sum mergeMap
		mergeMapWithOverride minimum modulo multiply parseBool parseFloat parseInt parseJSON
		parseUint parseYAML regexMatch regexReplaceAll replaceAll scratch sha256Hex spew_sdump
		spew_sprintf split splitToMap subtract timestamp toJSON toJSONPretty toLower toTOML
		toTitle toUnescapedJSON toUnescapedJSONPretty toUpper toYAML trim trimPrefix trimSpace
		trimSuffix`)
}

// builtinFunctions are those of text/template.
func builtinFunctions() []string {
	return strings.Fields(`and call eq ge gt html index js le len lt ne not or print printf println slice urlquery`)
}

const sprigPrefix = "sprig_"

// sprigFunctions are sprig's hermetic ones: without environment and network.
// Consul-template has them under sprigPrefix.
func sprigFunctions() []string {
	return strings.Fields(`
		abbrev abbrevboth add add1 add1f addf adler32sum ago all any append atoi b32dec b32enc
		b64dec b64enc base bcrypt biggest buildCustomCert camelcase cat ceil chunk clean coalesce
		compact concat contains decryptAES deepCopy deepEqual default derivePassword dict dig dir
		div divf duration durationRound empty encryptAES ext fail first float64 floor fromJson
		genCA genCAWithKey genPrivateKey genSelfSignedCert genSelfSignedCertWithKey genSignedCert
		genSignedCertWithKey get has hasKey hasPrefix hasSuffix hello htpasswd indent initial
		initials int int64 isAbs join kebabcase keys kindIs kindOf last list lower max maxf merge
		mergeOverwrite min minf mod mul mulf mustAppend mustChunk mustCompact mustDateModify
		mustDeepCopy mustFirst mustFromJson mustHas mustInitial mustLast mustMerge
		mustMergeOverwrite mustPrepend mustPush mustRegexFind mustRegexFindAll mustRegexMatch
		mustRegexReplaceAll mustRegexReplaceAllLiteral mustRegexSplit mustRest mustReverse
		mustSlice mustToDate mustToJson mustToPrettyJson mustToRawJson mustUniq mustWithout
		must_date_modify nindent nospace omit osBase osClean osDir osExt osIsAbs pick pluck plural
		prepend push quote randInt regexFind regexFindAll regexMatch regexQuoteMeta
		regexReplaceAll regexReplaceAllLiteral regexSplit repeat replace rest reverse round semver
		semverCompare seq set sha1sum sha256sum sha512sum shuffle slice snakecase sortAlpha split
		splitList splitn squote sub subf substr swapcase ternary title toDate toDecimal toJson
		toPrettyJson toRawJson toString toStrings trim trimAll trimPrefix trimSuffix trimall trunc
		tuple typeIs typeIsLike typeOf uniq unixEpoch unset until untilStep untitle upper urlJoin
		urlParse values without wrap wrapWith`)
}

// deniedGroup are functions that are denied for one reason: they would read the node, act
// on it, or need another server than Vault.
type deniedGroup struct {
	functions string
	// why ends with the remedy, if there is one.
	why string
}

func deniedGroups() []deniedGroup {
	return []deniedGroup{
		{`plugin`, "it would run a program on the node; put what the program computes into Vault"},
		{`sockaddr`, "it would show the node's addresses; take the pod's own from the downward API"},
		{`spew_dump spew_printf`, "it would print to the driver's output; use spew_sdump or spew_sprintf"},
		{
			`caLeaf caRoots connect datacenters exportedServices key keyExists keyOrDefault ls node nodes partitions peerings safeLs safeTree service services tree`,
			"it asks Consul, and vaultmount talks to Vault alone; put the value into Vault and read it with secret",
		},
		{
			`nomadService nomadServices nomadVar nomadVarExists nomadVarList nomadVarListSafe`,
			"it asks Nomad, and vaultmount talks to Vault alone; put the value into Vault and read it with secret",
		},
	}
}

func deniedFunctions() []string {
	var names []string
	for _, group := range deniedGroups() {
		names = append(names, strings.Fields(group.functions)...)
	}
	return names
}

// suggestion names the function that was most likely meant, if there is one.
func suggestion(name string) string {
	if slices.Contains(sprigFunctions(), name) {
		return fmt.Sprintf("; sprig's is %s%s", sprigPrefix, name)
	}
	if limits.SuggestionBytes.Check(len(name)) != nil {
		return "" // the edit distance takes quadratic time
	}
	near, best := "", max(1, len(name)/3)+1 // with more edits, a hint would mislead
	candidates := slices.Concat(overriddenFunctions(), allowedFunctions(), builtinFunctions())
	for _, function := range sprigFunctions() {
		candidates = append(candidates, sprigPrefix+function)
	}
	for _, candidate := range candidates {
		if distance := levenshtein.ComputeDistance(name, candidate); distance < best {
			near, best = candidate, distance
		}
	}
	if near == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", near)
}
