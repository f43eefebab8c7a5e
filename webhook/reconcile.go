package webhook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keywright/keywright"
)

// reconcileLimit bounds how many events one reconciliation looks at.
const reconcileLimit = 100_000

// Reconcile feeds the events that ricloud has recorded since a time through
// accept, oldest first, unless store knows them: after a receiver was down for
// longer than ricloud's attempts last. It returns how many were accepted. store
// and accept are the ones of the [Handler]; the event's Raw is absent. An error
// ends it, and it can be run again.
//
// The log is the organisation's: it has the events of all keys, also of those
// that deliver elsewhere. The time is the provider's: go back a few minutes
// further than the receiver was down.
func Reconcile(ctx context.Context, rc *keywright.Ricloud, since time.Time, store DedupeStore, accept func(context.Context, *Event) error) (accepted int, err error) {
	switch {
	case rc == nil:
		return 0, keywright.ErrNotInitialized
	case store == nil || accept == nil:
		return 0, &keywright.ParamError{Op: "webhook", Field: "store and accept", Reason: "are required"}
	}
	var missed []*keywright.Event
	for e, err := range rc.Event.All(ctx, keywright.EventListParams{}) {
		if err != nil {
			return 0, err
		}
		if !e.DateCreated.IsZero() && e.DateCreated.Before(since) { // the newest come first
			break
		}
		if missed = append(missed, e); len(missed) > reconcileLimit {
			return 0, fmt.Errorf("webhook: more than %d events since %s: begin later", reconcileLimit, since.Format(time.RFC3339))
		}
	}
	for _, listed := range slices.Backward(missed) {
		e := &Event{Event: *listed}
		if e.complete() != nil {
			continue // it is no event of ours to judge
		}
		err := store.Once(ctx, e.ID, Digest{}, func() error { return accept(ctx, e) })
		switch {
		case err == nil:
			accepted++
		case !errors.Is(err, ErrDuplicate):
			return accepted, err
		}
	}
	return accepted, nil
}
