package kube

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
)

// RemoveTaint removes the taint with a key from a node. A node that is created with it gets
// no pods before the driver can mount their volumes. A node without the taint is no error.
func RemoveTaint(ctx context.Context, config *rest.Config, node, key string) error {
	core, _, err := NewClient(config, corev1.SchemeGroupVersion, corev1.AddToScheme)
	if err != nil {
		return err
	}
	err = retry.RetryOnConflict(retry.DefaultBackoff, func() error { return removeTaint(ctx, core, node, key) })
	if err != nil {
		return fmt.Errorf("remove the taint %s from node %s: %w", key, node, err)
	}
	return nil
}

func removeTaint(ctx context.Context, core rest.Interface, name, key string) error {
	node := &corev1.Node{}
	if err := core.Get().Resource("nodes").Name(name).Do(ctx).Into(node); err != nil {
		return err
	}
	kept := slices.DeleteFunc(slices.Clone(node.Spec.Taints), func(taint corev1.Taint) bool { return taint.Key == key })
	if len(kept) == len(node.Spec.Taints) {
		return nil
	}
	// With the version, the API server refuses the patch if the taints have changed meanwhile.
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": node.ResourceVersion},
		"spec":     map[string]any{"taints": kept},
	})
	if err != nil {
		return err
	}
	return core.Patch(types.MergePatchType).Resource("nodes").Name(name).Body(patch).Do(ctx).Error()
}
