package webhook_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/webhook"
)

// After a time without a receiver the events that were missed are accepted,
// oldest first, once, also if a delivery comes late.
func TestReconcile(t *testing.T) {
	t.Parallel()
	for name, newStore := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, v, store := new(inbox), realtime(t), newStore(t)
			var down atomic.Bool
			down.Store(true)
			h := webhook.Handler(v, in.accept, webhook.WithStore(store))
			srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if down.Load() {
					w.WriteHeader(http.StatusBadGateway)
					return
				}
				h.ServeHTTP(w, r)
			}))
			f := hooked(t, v, srv.URL)
			rc := client(t, f)
			for task, err := range rc.Task.All(t.Context(), keywright.TaskListParams{}) { // the tests of the config
				require.NoError(t, err)
				_, err = rc.Task.Wait(t.Context(), task.ID)
				require.NoError(t, err)
			}
			f.Emit("session", "expired", map[string]any{"id": "long ago"})
			for e, err := range rc.Event.All(t.Context(), keywright.EventListParams{}) { // those that somebody waits for are over
				require.NoError(t, err)
				_, _ = f.WaitDelivered(t.Context(), string(e.ID))
			}
			f.Clock().Advance(time.Hour)
			since := f.Clock().Now()
			f.Clock().Advance(time.Second)
			var missed []string
			for range 30 { // more than a page of the provider's default
				id := f.Emit("task", "succeeded", map[string]any{"id": "t"})
				assert.Equal(t, "failed", settled(t, f, id))
				missed = append(missed, id)
				f.Clock().Advance(time.Second)
			}
			down.Store(false)
			f.Clock().Set(time.Now()) // so that the signatures are of today
			refused := errors.New("not now")
			n := 0
			got, err := webhook.Reconcile(t.Context(), rc, since, store, func(ctx context.Context, e *webhook.Event) error {
				if n++; n > 10 {
					return refused
				}
				return in.accept(ctx, e)
			})
			require.ErrorIs(t, err, refused)
			assert.Equal(t, 10, got)
			status, err := f.Deliver(missed[15], keywrighttest.Delivery{}) // a late delivery comes in between
			require.NoError(t, err)
			assert.Equal(t, http.StatusNoContent, status)
			got, err = webhook.Reconcile(t.Context(), rc, since, store, in.accept)
			require.NoError(t, err)
			assert.Equal(t, 19, got)
			got, err = webhook.Reconcile(t.Context(), rc, since, store, in.accept)
			require.NoError(t, err)
			assert.Zero(t, got, "all are known")
			var order []string
			for _, e := range in.events {
				order = append(order, string(e.ID))
				assert.Equal(t, string(e.ID) != missed[15], e.Raw.IsZero())
				require.NotNil(t, e.Task)
			}
			want := append(append([]string{}, missed[:10]...), missed[15])
			want = append(append(want, missed[10:15]...), missed[16:]...)
			assert.Equal(t, want, order, "oldest first, and not the one from long ago")
			for _, id := range missed { // later still
				status, err := f.Deliver(id, keywrighttest.Delivery{})
				require.NoError(t, err)
				assert.Equal(t, http.StatusNoContent, status)
			}
			assert.Len(t, in.events, 30)
		})
	}
}

// What was listed goes through the inbox of a FileStore as it was.
func TestReconcileIntoFileStore(t *testing.T) {
	t.Parallel()
	f := keywrighttest.StartRicloud(t)
	id := f.Emit("moon", "rose", map[string]any{"phase": "<full>"})
	dir := t.TempDir() + "/events"
	store := webhook.NewFileStore(dir)
	n, err := webhook.Reconcile(t.Context(), client(t, f), time.Time{}, store, store.Accept)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	ctx, stop := context.WithCancel(t.Context())
	err = webhook.NewFileStore(dir).Process(ctx, func(_ context.Context, e *webhook.Event) error {
		stop()
		assert.Equal(t, id, string(e.ID))
		assert.JSONEq(t, `{"phase":"<full>"}`, e.Data.Reveal())
		assert.True(t, e.Raw.IsZero())
		assert.Equal(t, keywright.EventPending, e.State)
		assert.False(t, e.DateCreated.IsZero())
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)
}

func TestReconcileRefuses(t *testing.T) {
	t.Parallel()
	f := keywrighttest.StartRicloud(t)
	f.Emit("moon", "rose", nil)
	rc, store, in := client(t, f), webhook.NewMemoryStore(0), new(inbox)
	_, err := webhook.Reconcile(t.Context(), nil, time.Time{}, store, in.accept)
	require.ErrorIs(t, err, keywright.ErrNotInitialized)
	var param *keywright.ParamError
	_, err = webhook.Reconcile(t.Context(), rc, time.Time{}, nil, in.accept)
	require.ErrorAs(t, err, &param)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = webhook.Reconcile(ctx, rc, time.Time{}, store, in.accept)
	require.ErrorIs(t, err, context.Canceled)
	assert.Empty(t, in.events)
}
