package store_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/store"
)

type wakeArgs struct {
	Job string `json:"job"`
}

func (wakeArgs) Kind() string { return "wake" }

// wakeWorker saves in a session, as a job that River wakes does.
type wakeWorker struct {
	river.WorkerDefaults[wakeArgs]
	store *store.Store
	done  chan string
}

func (w *wakeWorker) Work(ctx context.Context, job *river.Job[wakeArgs]) error {
	s, err := w.store.Journal("river").Begin(ctx, job.Args.Job)
	if err != nil {
		return err
	}
	if err := s.Save(ctx, []byte(job.Args.Job)); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	w.done <- job.Args.Job
	return nil
}

// River works on the same database, through what the store gives it.
func TestRiver(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		s := sqliteAt(t).open(t)
		testRiver[*sql.Tx](t, s, riversqlite.New(s.SQL()))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		s := postgresAt(t).open(t)
		testRiver[pgx.Tx](t, s, riverpgxv5.New(s.Pool()))
	})
}

func testRiver[Tx any](t *testing.T, s *store.Store, driver riverdriver.Driver[Tx]) {
	ctx := t.Context()
	migrator, err := rivermigrate.New(driver, nil)
	require.NoError(t, err)
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	require.NoError(t, err)
	worker := &wakeWorker{store: s, done: make(chan string, 20)}
	workers := river.NewWorkers()
	river.AddWorker(workers, worker)
	client, err := river.NewClient(driver, &river.Config{Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 8}}, Workers: workers, TestOnly: true})
	require.NoError(t, err)
	require.NoError(t, client.Start(ctx))
	want := []string{"a", "b", "c", "d", "e", "f"}
	for _, job := range want {
		_, err := client.Insert(ctx, wakeArgs{Job: job}, nil)
		require.NoError(t, err)
	}
	var got []string
	for range want {
		got = append(got, <-worker.done)
	}
	require.ElementsMatch(t, want, got)
	require.NoError(t, client.Stop(context.WithoutCancel(ctx)))
	for _, job := range want {
		b, err := s.Journal("w").Peek(ctx, job)
		require.NoError(t, err)
		require.Equal(t, job, string(b))
	}
}
