package template

import (
	"slices"
	"strings"
)

// treatment is what becomes of a function of consul-template here.
type treatment int

const (
	// unknown: neither consul-template nor text/template has it.
	unknown treatment = iota
	// offered as consul-template has it.
	offered
	// emulated with what the caller knows, in place of what consul-template reads.
	emulated
	// refused, since it would read the node or act on it.
	refused
)

// treat says what becomes of a function, and why if it is refused.
func treat(name string) (t treatment, why string) {
	if group, ok := refusalOf(name); ok {
		return refused, group.why
	}
	if slices.Contains(emulatedFunctions(), name) {
		return emulated, ""
	}
	if bare, isSprig := strings.CutPrefix(name, sprigPrefix); isSprig && slices.Contains(sprigFunctions(), bare) {
		return offered, ""
	}
	if slices.Contains(offeredFunctions(), name) || slices.Contains(builtinFunctions(), name) {
		return offered, ""
	}
	return unknown, ""
}

// emulatedFunctions are this package's own. Those of consul-template ask Vault
// with a goroutine and process-wide settings for each secret, or read the host.
func emulatedFunctions() []string {
	return strings.Fields(`env envOrDefault file loop mustEnv pkiCert secret secrets writeToFile`)
}

// offeredFunctions are consul-template's own. A test holds them against its
// source, so that a new one is looked at before it is offered.
func offeredFunctions() []string {
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

// sprigFunctions are sprig's hermetic ones, which consul-template offers under a
// prefix. Sprig means: no environment, no network.
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

// refusal is a group of functions that are not offered for one reason.
type refusal struct {
	functions string
	// why ends with the way out, if there is one.
	why string
}

func refusals() []refusal {
	return []refusal{
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

func refusalOf(name string) (refusal, bool) {
	for _, group := range refusals() {
		if slices.Contains(strings.Fields(group.functions), name) {
			return group, true
		}
	}
	return refusal{}, false
}

func refusedFunctions() []string {
	var names []string
	for _, group := range refusals() {
		names = append(names, strings.Fields(group.functions)...)
	}
	return names
}
