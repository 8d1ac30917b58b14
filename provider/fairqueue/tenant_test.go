package fairqueue_test

import (
	"context"
	"testing"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
)

func TestTenantTravelsInContext(t *testing.T) {
	if got := fairqueue.Tenant(context.Background()); got != "" {
		t.Errorf("tenant of an empty context: %q", got)
	}
	ctx := fairqueue.WithTenant(context.Background(), "payments")
	if got := fairqueue.Tenant(fairqueue.WithTenant(ctx, "billing")); got != "billing" {
		t.Errorf("the nearest tenant is not the one that counts: %q", got)
	}
	if got := fairqueue.Tenant(ctx); got != "payments" {
		t.Errorf("tenant: %q", got)
	}
}
