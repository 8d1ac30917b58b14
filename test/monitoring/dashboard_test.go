package monitoring

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// dashboard is what matters here of a Grafana dashboard.
type dashboard struct {
	SchemaVersion int `json:"schemaVersion"`
	Templating    struct {
		List []struct{ Name, Type string } `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

type panel struct {
	ID          int          `json:"id"`
	Type        string       `json:"type"`
	Title       string       `json:"title"`
	Description string       `json:"description"`
	Datasource  source       `json:"datasource"`
	GridPos     rectangle    `json:"gridPos"`
	Targets     []targetSpec `json:"targets"`
}

type source struct{ Type, UID string }

type rectangle struct{ X, Y, W, H int }

type targetSpec struct {
	RefID      string `json:"refId"`
	Expr       string `json:"expr"`
	Datasource source `json:"datasource"`
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	require.NoError(t, json.Unmarshal([]byte(readFile(t, dashboardFile)), &d))
	return d
}

// queried are the panels that ask for something.
func (d dashboard) queried() []panel {
	return slices.DeleteFunc(slices.Clone(d.Panels), func(p panel) bool { return p.Type == "row" })
}

// The dashboard works with any Prometheus that Grafana knows, and says of each panel
// what it shows.
func TestDashboardIsWhole(t *testing.T) {
	d := readDashboard(t)
	if list := d.Templating.List; len(list) == 0 || list[0].Name != "datasource" || list[0].Type != "datasource" {
		t.Errorf("the first variable is not the data source: %v", list)
	}
	var rows []string
	ids := map[int]bool{}
	for _, panel := range d.Panels {
		if ids[panel.ID] {
			t.Errorf("two panels have the id %d", panel.ID)
		}
		ids[panel.ID] = true
		if panel.Type == "row" {
			rows = append(rows, panel.Title)
			continue
		}
		if panel.Title == "" || panel.Description == "" || len(panel.Targets) == 0 || panel.Datasource.UID != "${datasource}" {
			t.Errorf("panel %q lacks a description, a query or the data source variable", panel.Title)
		}
		for _, target := range panel.Targets {
			if target.Datasource.UID != "${datasource}" {
				t.Errorf("panel %q asks %q", panel.Title, target.Datasource.UID)
			}
		}
	}
	if got := strings.Join(rows, ", "); got != "At a glance, Publishes, Vault, Freshness, Templates, Resources" {
		t.Errorf("the rows are %s", got)
	}
}

func TestPanelsDoNotOverlap(t *testing.T) {
	panels := readDashboard(t).Panels
	for i, one := range panels {
		a := one.GridPos
		if a.W <= 0 || a.H <= 0 || a.X+a.W > 24 {
			t.Errorf("panel %q is at %+v", one.Title, a)
		}
		for _, other := range panels[i+1:] {
			b := other.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("panels %q and %q overlap", one.Title, other.Title)
			}
		}
	}
}
