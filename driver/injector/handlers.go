package injector

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vaultmount/vaultmount/driver/volume"
)

// The parsers of the table accept and reject the same values as the injector, and return
// them in their usual form.

// mismatch returns the error for a value that is not what the text says.
func mismatch(err error, value, text string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s is not %s", quote(value), text)
}

func parseBoolean(value string) (string, error) {
	if value == "" {
		return "false", nil
	}
	b, err := strconv.ParseBool(value)
	return strconv.FormatBool(b), mismatch(err, value, `a boolean; write "true" or "false"`)
}

func parseInteger(value string) (string, error) {
	number, err := strconv.ParseInt(value, 0, 64)
	return strconv.FormatInt(number, 10), mismatch(err, value, `a whole number; write for example "2"`)
}

func parseSeconds(value string) (string, error) {
	_, err := strconv.ParseUint(value, 10, 64)
	return value, mismatch(err, value, `a number of seconds; write for example "5"`)
}

func parseQuantity(value string) (string, error) {
	_, err := volume.ParseQuantity(value)
	return value, mismatch(err, value, `a quantity; write for example "128Mi"`)
}

// oneOf accepts a list of some of the words, separated by commas.
func oneOf(words ...string) func(string) (string, error) {
	return func(value string) (string, error) {
		for part := range strings.SplitSeq(value, ",") {
			if part = strings.TrimSpace(part); part != "" && !slices.Contains(words, part) {
				return "", fmt.Errorf("%s is not one of %s", quote(part), strings.Join(words, ", "))
			}
		}
		return value, nil
	}
}

func requestNamespace(t *translation, name, value string) {
	if value != t.namespace {
		t.warn(name, "has no effect: the pod acts in its own namespace; remove it")
	}
}

// token: whoever holds the Vault token can do all that the role may, not only read the
// secrets of the pod.
func token(t *translation, name, _ string) {
	if t.settings.ForbidToken {
		t.reject(name, "is forbidden in this cluster; remove it, and let agent-inject-secret-FILE write the secrets themselves")
	}
}

// clamped sets an attribute that the driver clamps to a range. A bare number is in seconds,
// as in the Vault Agent.
func clamped(attribute string, allowed volume.Range) func(*translation, string, string) {
	return func(t *translation, name, value string) {
		t.setAttribute(attribute, value, name)
		if _, err := strconv.Atoi(value); err == nil {
			value += "s"
		}
		duration, err := time.ParseDuration(value)
		if err == nil && duration > 0 && allowed.Clamp(duration) != duration {
			t.warn(name, "the driver uses %s in place of %s; write a value %s", allowed.Clamp(duration), value, allowed)
		}
	}
}

func maxRetries(t *translation, name, value string) {
	t.setAttribute(name, value, name)
	if retries, err := strconv.Atoi(value); err == nil && retries > volume.MaxRetries {
		t.warn(name, "the driver retries at most %d times; write a number from 0 to %d", volume.MaxRetries, volume.MaxRetries)
	}
}

// service leaves the choice to the driver's allow-list: the pod's token is sent to the
// address, and a volume can be written by hand too.
func service(t *translation, name, value string) {
	address := strings.TrimRight(t.settings.Address, "/")
	if address == "" || strings.TrimRight(value, "/") != address {
		t.setAttribute("address", value, name)
	}
}

// prePopulate: the driver always writes the files before the pod starts.
func prePopulate(t *translation, name, _ string) {
	if t.isOn(namePrePopulateOnly, false) {
		t.reject(name, "with %s the injector would render nothing at all; remove one of them", namePrePopulateOnly)
		return
	}
	t.warn(name, "secrets are always present before start, so while Vault is down the pod waits; remove it")
}

// prePopulateOnly: the injector's init agent writes the files once and ends.
func prePopulateOnly(t *translation, name, _ string) {
	t.setAttribute("refresh", "false", name)
}

// cacheEnable rejects what the application would miss: the agent's listener. An init
// agent never opens it.
func cacheEnable(t *translation, name, _ string) {
	if t.isOn(namePrePopulateOnly, false) {
		t.warn(name, "has no effect with %s; remove it", namePrePopulateOnly)
		return
	}
	t.reject(name, "nothing listens at localhost in the pod; remove it, and let the application talk to Vault or read files")
}

// enableQuit: a Job that ends with a call to the agent would fail and run again.
func enableQuit(t *translation, name, _ string) {
	const text = "there is no agent to quit and the pod ends by itself; remove it together with the call to " +
		"/agent/v1/quit, which would fail"
	if t.settings.AllowQuit {
		t.warn(name, text)
		return
	}
	t.reject(name, text)
}
