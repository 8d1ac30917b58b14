package kube

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// The reasons of Events, as "kubectl describe pod" shows them.
const (
	NotRefreshed = "SecretsNotRefreshed"
	Refreshed    = "SecretsRefreshed"
)

// Volume is the subject of an Event.
type Volume struct {
	Namespace, Pod, PodUID string
	// Name is that of the volume in the pod.
	Name string
}

// Events writes Kubernetes Events about pods when the refresh of a volume begins to fail,
// and when it succeeds again. It may be used concurrently and never waits: it sends in the
// background, and an Event that the API server does not accept is lost.
type Events struct {
	recorder    record.EventRecorder
	broadcaster record.EventBroadcaster
	count       func(reason string)
}

// The limit of Events about one pod, whose volume may fail and recover all the time.
const (
	burst     = 10
	perSecond = 1. / 300
)

// NewEvents returns a recorder that counts Events by count. Stop ends it.
func NewEvents(ctx context.Context, config *rest.Config, node string, count func(reason string)) (*Events, error) {
	core, scheme, err := NewClient(config, corev1.SchemeGroupVersion, corev1.AddToScheme)
	if err != nil {
		return nil, err
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx), record.WithCorrelatorOptions(record.CorrelatorOptions{BurstSize: burst, QPS: perSecond}))
	broadcaster.StartRecordingToSink(sink{core})
	return &Events{
		recorder:    broadcaster.NewRecorder(scheme, corev1.EventSource{Component: "vaultmount", Host: node}),
		broadcaster: broadcaster, count: count,
	}, nil
}

// Stop sends no more Events.
func (e *Events) Stop() { e.broadcaster.Shutdown() }

// Refreshed reports a change: why the refresh of a volume fails, or nil when it succeeds
// again.
func (e *Events) Refreshed(volume Volume, now error) {
	// True of every cause, also of a volume that was full.
	kind, reason, message := corev1.EventTypeNormal, Refreshed, "refreshed again; the files are up to date"
	if now != nil {
		kind, reason, message = corev1.EventTypeWarning, NotRefreshed, "the files stay as they are: "+now.Error()
	}
	message = fmt.Sprintf("volume %q: %s", volume.Name, message)
	e.recorder.Event(&corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: volume.Namespace, Name: volume.Pod, UID: types.UID(volume.PodUID),
	}, kind, reason, limits.Shorten(message, limits.ErrorBytes.Max()))
	e.count(reason)
}

// sink is the API server's part of an event recorder.
type sink struct{ core rest.Interface }

// Create implements record.EventSink.
func (s sink) Create(event *corev1.Event) (*corev1.Event, error) {
	made := &corev1.Event{}
	return made, s.core.Post().Namespace(event.Namespace).Resource("events").Body(event).Do(context.Background()).Into(made)
}

// Update implements record.EventSink.
func (s sink) Update(event *corev1.Event) (*corev1.Event, error) {
	made := &corev1.Event{}
	return made, s.core.Put().Namespace(event.Namespace).Resource("events").Name(event.Name).Body(event).Do(context.Background()).Into(made)
}

// Patch implements record.EventSink.
func (s sink) Patch(event *corev1.Event, patch []byte) (*corev1.Event, error) {
	made := &corev1.Event{}
	return made, s.core.Patch(types.StrategicMergePatchType).Namespace(event.Namespace).Resource("events").Name(event.Name).Body(patch).Do(context.Background()).Into(made)
}
