package volume

import (
	"fmt"
	"strconv"
)

// lifecycleKeys are the attributes that say how long what the files show may
// stay as it is.
func (p *parser) lifecycleKeys() map[string]func(string) error {
	life := &p.spec.Lifecycle
	return map[string]func(string) error{
		keyRefresh:        into(&life.Refresh, parseBool),
		keyStaticInterval: into(&life.StaticInterval, parseDurationOrSeconds),
		keyRenewal:        into(&life.RenewalThreshold, parseThreshold),
		keyRevoke:         into(&life.Revocation, parseRevocation),
	}
}

// parseThreshold takes a part of a lease.
func parseThreshold(value string) (float64, error) {
	threshold, err := strconv.ParseFloat(value, 64)
	// Written so that NaN is refused as well.
	if err != nil || !(threshold > 0 && threshold <= 1) {
		return 0, fmt.Errorf("%s is not a part of a lease, above 0 and up to 1; write for example \"0.9\"", quote(value))
	}
	return threshold, nil
}

func parseRevocation(value string) (Revocation, error) {
	revoke, err := parseBool(value)
	switch {
	case err != nil:
		return DriversRevocation, err
	case revoke:
		return Revoke, nil
	}
	return Keep, nil
}
