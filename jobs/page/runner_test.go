package page_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/page"
	"github.com/keywright/keywright/jobs/schedule"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

// A runner on a real database, before, while and after it runs.
func TestRunner(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "private")
	require.NoError(t, os.Mkdir(dir, 0o700))
	st, err := store.OpenSQLite(t.Context(), filepath.Join(dir, "keywright.db"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	r, err := jobs.New(st, jobs.WithWorkerID("worker-a"), jobs.WithSealer(rotation.SealKeyFile(filepath.Join(dir, "seal.key"))))
	require.NoError(t, err)
	p, err := page.New(r, st)
	require.NoError(t, err)
	require.Equal(t, 503, get(p, "/").Code)

	spec, err := schedule.Parse([]byte(`{"every": "30d"}`))
	require.NoError(t, err)
	job := jobs.Job{Schedule: spec, Err: errors.New("its token is not there")}
	job.Name = "billing"
	require.NoError(t, r.Register(t.Context(), job))
	require.NoError(t, r.Start(t.Context()))
	require.Equal(t, []string{"billing"}, show(t, p, "/").names())
	require.Contains(t, show(t, p, "/keys/billing").one(t, "main", "key").text, "its token is not there")
	require.Equal(t, 404, get(p, "/keys/nobody").Code)

	require.NoError(t, st.AddEvent(t.Context(), store.Event{Job: "billing", Kind: store.KindLost, Text: "3 events", At: time.Now()}))
	require.Contains(t, show(t, p, "/keys/billing").one(t, "main", "key").text, "3 events")
	require.NoError(t, r.Stop(t.Context()))
	require.Equal(t, 503, get(p, "/keys/billing").Code)
}
