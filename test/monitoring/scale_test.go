package monitoring

import (
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
)

// scaled makes rules as many times as fast, so that a test sees in a minute what
// takes half an hour: it divides each "for", each window in brackets, and each
// number that a metric in seconds is compared with. Nothing else is touched.
func scaled(t *testing.T, rules string, factor int) string {
	t.Helper()
	shorter := func(text string) string {
		duration, err := model.ParseDuration(text)
		require.NoError(t, err)
		return model.Duration(time.Duration(duration) / time.Duration(factor)).String()
	}
	replace := func(pattern string, with func(string) string) {
		expression := regexp.MustCompile(pattern)
		rules = expression.ReplaceAllStringFunc(rules, func(found string) string {
			parts := expression.FindStringSubmatch(found)
			return parts[1] + with(parts[2]) + parts[3]
		})
	}
	replace(`(?m)^(\s+for: )(\w+)()$`, shorter)
	replace(`(\[)(\w+)(\])`, shorter)
	replace(`(vaultmount_\w+_seconds\)? > )(\d+)()`, func(text string) string {
		seconds, err := strconv.Atoi(text)
		require.NoError(t, err)
		return strconv.Itoa(seconds / factor)
	})
	return rules
}

func TestScaledRulesDifferInTimesAlone(t *testing.T) {
	rules := "    expr: max by (job) (vaultmount_oldest_failed_refresh_age_seconds) > 1800 and rate(x_total[10m]) > 5\n    for: 1h30m\n"
	want := "    expr: max by (job) (vaultmount_oldest_failed_refresh_age_seconds) > 60 and rate(x_total[20s]) > 5\n    for: 3m\n"
	if got := scaled(t, rules, 30); got != want {
		t.Errorf("got\n%s", got)
	}
}
