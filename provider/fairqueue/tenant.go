package fairqueue

import "context"

type tenantKey struct{}

// WithTenant says on whose account what runs under ctx asks for a resource: the
// namespace of the pod. It travels in the context because the HTTP transport, which
// waits for a place, is given nothing else.
func WithTenant(ctx context.Context, namespace string) context.Context {
	return context.WithValue(ctx, tenantKey{}, namespace)
}

// Tenant returns the namespace that WithTenant set. All work without one counts as
// the work of a single tenant, whose name no namespace has.
func Tenant(ctx context.Context) string {
	namespace, _ := ctx.Value(tenantKey{}).(string)
	return namespace
}
