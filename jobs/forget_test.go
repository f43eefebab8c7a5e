package jobs

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation"
)

func (b *bench) names() []string {
	b.t.Helper()
	all, err := b.Snapshot(b.t.Context())
	require.NoError(b.t, err)
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Job
	}
	return names
}

// A worker that knows fewer jobs leaves those of the others alone.
func TestReloadOthers(t *testing.T) {
	t.Parallel()
	d, c, w := postgresAt(t), &clock{}, &world{}
	billing, search := newKey(w, "billing").job(nil), newKey(w, "search").job(nil)
	first := newBench(t, d, c).start(billing, search)
	second := newBench(t, d, c, WithWorkerID("w2")).start(billing)
	require.NoError(t, second.Reload(t.Context(), slices.Values([]Job{billing})))
	require.Equal(t, []string{"billing", "search"}, second.names())
	s := second.status1("search")
	require.Contains(t, s.Blocked, "does not know the job")
	require.NoError(t, first.Reload(t.Context(), slices.Values([]Job{billing})))
	require.Equal(t, []string{"billing"}, second.names(), "who knew it takes it away")
}

// A job that is taken away while its rotation is under way is still shown, and
// goes on when it is back. Afterwards it can be taken away, or forgotten.
func TestReloadUnderWay(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		k, c := newKey(&world{}, "billing"), &clock{}
		k.ready = rotation.ErrNotReady
		job := k.job(nil)
		job.Acknowledge = func(context.Context, keywright.Secret) error {
			k.mu.Lock()
			defer k.mu.Unlock()
			return k.ready
		}
		b := newBench(t, d, c).start(job)
		require.NoError(t, b.Trigger(t.Context(), "billing"))
		b.until(func(v Result) bool { return v.State == string(rotation.StateConverging) })
		require.NoError(t, b.Reload(t.Context(), slices.Values([]Job{})))
		require.Equal(t, []string{"billing"}, b.names())
		s := b.status1("billing")
		require.True(t, s.UnderWay())
		require.Contains(t, s.Blocked, "does not know the job")
		require.ErrorIs(t, b.beside(t, c).Forget(t.Context(), "billing"), rotation.ErrUnfinished)

		k.set(func() { k.ready = nil })
		require.NoError(t, b.Register(t.Context(), job))
		require.NoError(t, b.Trigger(t.Context(), "billing"))
		require.True(t, done(b.until(done)))
		require.Equal(t, 1, k.count())
		require.ErrorIs(t, b.beside(t, c, job).Forget(t.Context(), "billing"), ErrJob)
		require.NoError(t, b.beside(t, c).Forget(t.Context(), "billing"))
		require.Empty(t, b.names())
		require.ErrorIs(t, b.beside(t, c).Forget(t.Context(), "billing"), ErrUnknown)
	})
}
