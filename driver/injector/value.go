package injector

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// The checks take and refuse what the injector's do, in its words, which people
// search for.

func parseBool(value string) (bool, error) {
	if value == "" {
		return false, nil
	}
	const enough = 60 // the error repeats it
	b, err := strconv.ParseBool(limits.Truncate(value, enough))
	if err != nil {
		return false, fmt.Errorf("cannot parse '' as bool: %w; write \"true\" or \"false\"", err)
	}
	return b, nil
}

func checkBool(value string) error {
	_, err := parseBool(value)
	return err
}

func checkInteger(value string) error {
	if value == "" {
		return nil
	}
	_, err := strconv.ParseInt(value, 0, 64)
	return orWrite(err, "a number")
}

// orWrite adds the way out to an error of a parser, if there is one.
func orWrite(err error, instead string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w; write %s", err, instead)
}

func checkSeconds(value string) error {
	_, err := strconv.ParseUint(value, 10, 64)
	return orWrite(err, "a number of seconds")
}

// checkThreshold wants a fraction of a lease; the injector takes any number.
func checkThreshold(value string) error {
	threshold, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return orWrite(err, "for example \"0.90\"")
	}
	// Written so that NaN is refused as well.
	if !(threshold > 0 && threshold <= 1) {
		return fmt.Errorf("%s is no fraction of a lease; write for example \"0.90\"", quote(value))
	}
	return nil
}

func checkDuration(value string) error {
	_, err := time.ParseDuration(value)
	return orWrite(err, "for example \"60s\"")
}

// checkDurationOrSeconds takes a bare number as seconds, as the Vault Agent does.
func checkDurationOrSeconds(value string) error {
	if _, err := strconv.ParseInt(value, 10, 64); err == nil || value == "" {
		return nil
	}
	return checkDuration(value)
}

func checkQuantity(value string) error {
	if value == "" {
		return nil
	}
	_, err := volume.ParseQuantity(value)
	return err
}

func checkJSON(value string) error {
	if !json.Valid([]byte(value)) {
		return errors.New("is not JSON, for which the injector would drop all of the agent's telemetry settings; remove it, or quote it as JSON")
	}
	return nil
}

func checkList(allowed ...string) func(string) error {
	return func(value string) error {
		for part := range strings.SplitSeq(value, ",") {
			if part = strings.TrimSpace(part); part != "" && !slices.Contains(allowed, part) {
				return fmt.Errorf("%s is not one of %s", quote(part), strings.Join(allowed, ", "))
			}
		}
		return nil
	}
}
