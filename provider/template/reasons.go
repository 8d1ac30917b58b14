package template

// known is a reason of text/template or of a function, and what is shown of it.
type known struct {
	pattern, shown string
	// quotes says that the pattern's first group is shown, and only if it stands in
	// the template as well: it may as well have come out of a secret.
	quotes bool
}

// A type is one of Go as it is printed, a name that of a function, and a node a
// piece of the template itself.
const (
	aType = `([\w.*{}\[\] ]+)`
	aName = `(\w+)`
	aNode = `(.*)`
)

// knownReasons hold names, types and pieces of the template. Numbers are left out:
// they may be computed from a secret.
func knownReasons() []known {
	return append(engineReasons(), functionReasons()...)
}

// engineReasons are those of text/template outside of functions.
func engineReasons() []known {
	same := func(pattern, hint string) known { return known{pattern: pattern, shown: "${0}" + hint} }
	quoting := func(pattern, hint string) known { return known{pattern, "${0}" + hint, true} }
	return []known{
		quoting(`map has no entry for key "(.*)"`, ""),
		quoting(`nil data; no entry for key "(.*)"`, "; what stands before it is missing"),
		same(`nil pointer evaluating `+aType, "; what stands before the last dot is missing"),
		same(`can't evaluate field \w+ in type (?:string|interface \{\})`, "; the value before the dot has no fields"),
		same(`can't evaluate field \w+ in type `+aType, ""),
		same(`wrong type for value; expected `+aType+`; got `+aType, ""),
		same(`wrong number of args for \w+: want (?:at least )?\d+ got \d+`, ""),
		same(`invalid value; expected `+aType, "; the value is missing"),
		same(`dereference of nil pointer of type `+aType, ""),
		same(`cannot assign nil to `+aType, "; the value is missing"),
		quoting(`template "(.*)" not defined`, "; there is no define of that name"),
		same(`exceeded maximum template depth \(\d+\)`, "; a template calls itself without an end"),
		same(`expected (?:bool|string|integer|unsigned integer|float); found '.*'`, "; write strings in double quotes"),
		same(`expected (?:bool|string|integer|unsigned integer|float); found `+aNode, ""),
		same(`can't give argument to non-function `+aNode, "; to compare, write eq A B"),
		same(`\w+ has arguments but cannot be invoked as function`, ""),
		same(`\w+ is not a method but has arguments`, ""),
		same(`\w+ is an unexported field of struct type `+aType, ""),
		same(`can't handle `+aNode+` for arg of type `+aType, ""),
		same(`can't print `+aNode+` of type `+aType, ""),
		same(`nil is not a command`, ""),
		{pattern: `range can't iterate over .*`, shown: "range can't iterate over the value, which is neither a list nor a map"},
		{pattern: `can't use .* (?:to )?iterate over more than one variable`, shown: "range can't give more than one variable for each of these values"},
	}
}

// functionReasons are those of functions.
func functionReasons() []known {
	calling := func(pattern, shown string) known {
		return known{pattern: `error calling ` + aName + `: (?:\w+: )?` + pattern, shown: "error calling ${1}: " + shown}
	}
	same := func(pattern string) known { return calling("("+pattern+")", "${2}") }
	return []known{
		calling(`strconv\.(?:ParseInt|ParseUint|Atoi): parsing .*: (invalid syntax|value out of range)`, "the value is not a whole number that fits (${2})"),
		calling(`strconv\.ParseFloat: parsing .*: (invalid syntax|value out of range)`, "the value is not a number that fits (${2})"),
		calling(`strconv\.ParseBool: parsing .*: invalid syntax`, `the value is neither "true" nor "false"`),
		calling(`illegal base64 data at input byte \d+`, "the value is not base64"),
		calling(`(?:invalid character .*|unexpected end of JSON input)`, "the value is not JSON"),
		calling(`json: unsupported (type|value): .*`, "the value cannot be written as JSON (unsupported ${2})"),
		calling(`yaml: .*`, "the value is not YAML"),
		calling(`toml: .*`, "the value cannot be written as TOML"),
		calling(`error parsing regexp: ([a-z ()*?:\[\]\\-]+): .*`, "the regular expression is wrong: ${2}"),
		calling(`unknown type for .* \(`+aType+`\)`, "a value is of type ${2} and no number"),
		calling(`not a map: .*`, "a key has a value and is the beginning of another key as well"),
		calling(`index out of range: -?\d+`, "index out of range"),
		calling(`invalid slice index: .*`, "invalid slice index"),
		calling(`runtime error: (index|slice bounds) out of range.*`, "${2} out of range"),
		calling(`reflect: (?:slice|string) (?:index|slice index) out of range`, "index out of range"),
		calling(`non-comparable types? .*`, "a value cannot be compared"),
		same(`runtime error: integer divide by zero`),
		same(`runtime error: invalid memory address or nil pointer dereference`),
		same(`(?:index|slice) of untyped nil`),
		same(`(?:index|len|slice) of nil pointer`),
		same(`(?:can't index|can't slice) item of type ` + aType),
		same(`len of type ` + aType),
		same(`cannot index slice/array with (?:nil|type ` + aType + `)`),
		same(`value has type ` + aType + `; should be ` + aType),
		same(`value is nil; should be of type ` + aType),
		same(`cannot 3-index slice a string`),
		same(`too many slice indexes: \d+`),
		same(`incompatible types for comparison(?:: ` + aType + ` and ` + aType + `)?`),
		same(`invalid type for comparison`),
		same(`missing argument for comparison`),
		same(`(?:timestamp|executeTemplate): wrong number of arguments, expected \d or \d, but got \d+`),
		same(`wrong argument type ` + aType),
		same(`indent value must be a positive integer`),
		same(`strings: negative Repeat count`),
		same(`src and dst must be of same type`),
		same(`only structs, maps, and slices are supported`),
		{`error calling executeTemplate: template: no template "(.*)" associated with template ".*"`, `error calling executeTemplate: there is no define "${1}"`, true},
		{`error calling sprig_fail: (.*)`, `${1}`, true},
	}
}
