package injector

import "strings"

// Family returns the name under which an annotation stands in the list of all,
// without the prefix and with X for a file or Y for a setting; "unknown" for one
// that is not in it. There are few of these, so they suit the label of a metric.
func (t Translator) Family(key string) string {
	name := strings.TrimPrefix(key, t.withDefaults().Prefix)
	found, ok := find(rows(), name)
	if !ok {
		return "unknown"
	}
	for _, candidate := range found.row.names {
		if family, isFamily := familyOf(candidate); candidate == name || isFamily && family == found.family {
			return candidate
		}
	}
	return name
}
