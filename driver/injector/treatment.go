package injector

import "slices"

// treatment does what one annotation needs: nothing, a warning or a refusal.
type treatment func(r *reading, name, value string)

// moot is for settings of the agent, where there is none.
func moot(text string) treatment {
	return func(r *reading, name, _ string) { r.warn(name, "%s", text) }
}

func refused(text string) treatment {
	return func(r *reading, name, _ string) { r.refuse(name, "%s", text) }
}

func silent() treatment {
	return func(*reading, string, string) {}
}

// checked refuses what the injector refuses, even where the value means nothing
// to the driver: a manifest is good for both or for none.
func checked(check func(string) error, then treatment) treatment {
	return func(r *reading, name, value string) {
		if err := check(value); err != nil {
			r.refuse(name, "%v", err)
			return
		}
		then(r, name, value)
	}
}

// unless passes over values that spell out a default.
func unless(then treatment, defaults ...string) treatment {
	return func(r *reading, name, value string) {
		if !slices.Contains(defaults, value) {
			then(r, name, value)
		}
	}
}

// unlessFalse is for switches that are off by default. Only a checked value
// comes here.
func unlessFalse(then treatment) treatment {
	return func(r *reading, name, value string) {
		if on, err := parseBool(value); on && err == nil {
			then(r, name, value)
		}
	}
}

// isOn reads a switch that its own treatment checks.
func (r *reading) isOn(name string, otherwise bool) bool {
	value, present := r.values[name]
	if !present {
		return otherwise
	}
	on, err := parseBool(value)
	if err != nil {
		return otherwise
	}
	return on
}
