//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/internal/pgtest"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/jobfile"
)

// rotate rotates as keywright rotate run does.
func (w *world) rotate(name string) error { return w.rotateUntil(w.t.Context(), name) }

// rotateUntil does so until ctx ends.
func (w *world) rotateUntil(ctx context.Context, name string) error {
	w.t.Helper()
	f, err := jobfile.Load(w.path("keywright.yaml"))
	require.NoError(w.t, err)
	engine, err := f.Open()
	if err != nil {
		return err
	}
	job, err := f.Job(name)
	require.NoError(w.t, err)
	_, err = engine.Rotate(ctx, job)
	return err
}

// words takes a command line apart, as a shell does.
func words(t *testing.T, line string) []string {
	t.Helper()
	b, err := exec.CommandContext(t.Context(), "sh", "-c", `printf '%s\n' `+line).Output()
	require.NoError(t, err)
	all := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	require.Equal(t, "keywright-rotator", all[0])
	return all[1:]
}

// advice is the command that the daemon's log says to run.
func advice(t *testing.T, said string) []string {
	t.Helper()
	_, line, found := strings.Cut(said, `do="stop what uses that journal, and run: `)
	require.True(t, found, said)
	line, _, _ = strings.Cut(line, `"`)
	return words(t, line)
}

// From keywright rotate run to a daemon with SQLite, and on to one with
// PostgreSQL: each refuses to begin a second journal, and says what to run
// instead; that is run, and what was under way goes on.
func TestMove(t *testing.T) {
	t.Parallel()
	postgres := pgtest.Start(t)
	w := newWorld(t, 3)
	require.NoError(t, w.rotate("job-0"))
	w.learn()
	// A rotation that ended when its token was issued and nobody had it.
	w.fake.Inject(keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.AfterApply, Do: keywrighttest.Stall})
	calls, before := w.fake.Applied("key.rotate"), w.token(1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for w.fake.Applied("key.rotate") == calls && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	require.ErrorIs(t, w.rotateUntil(ctx, "job-1"), rotation.ErrUnfinished)
	require.Equal(t, before, w.token(1))
	calls = w.fake.Applied("key.rotate")

	code, _, said := w.run("--listen", "off")
	require.Equal(t, 2, code, said)
	require.Contains(t, said, "the journal of job-0, job-1 is in "+w.path(".keywright")+", and not in the database")
	code, _, checked := w.run("check")
	require.Equal(t, 1, code)
	require.Contains(t, checked, "the journal of job-0, job-1 is in ")
	code, out, moveSaid := w.run(advice(t, said)...)
	require.Zero(t, code, moveSaid)
	require.Contains(t, out, "moved 2 journals: job-0, job-1\n")
	require.Contains(t, out, "the directory is now "+w.path(".keywright.moved"))
	require.Contains(t, out, "the sealing key was copied to "+w.path("keywright.seal"))
	require.Contains(t, out, "next: keywright-rotator --config keywright.yaml\n")
	require.ErrorIs(t, w.rotate("job-0"), rotation.ErrRefused, "the command line has no journal any more")

	p := w.start().ready() // job-1 goes on
	p.awaitLog(`msg="rotation finished" job=job-1 state=DONE`)
	require.NotEqual(t, before, w.token(1))
	require.Equal(t, calls+1, w.fake.Applied("key.rotate"), "no token was issued, and one burnt")
	w.learn()
	p.stop()

	// On to PostgreSQL.
	seal := "journal: database\nseal_key: {file: keys/seal}\n"
	w.config(3, seal)
	require.NoError(t, os.Mkdir(w.path("keys"), 0o700))
	code, _, said = w.run("--database", postgres)
	require.Equal(t, 2, code)
	require.Contains(t, said, "the sealing key "+w.path("keys/seal")+" is not there")
	w.write("keys/seal", strings.Repeat("0123456789abcdef", 4)+"\n")
	code, _, said = w.run("--database", postgres)
	require.Equal(t, 2, code)
	require.Contains(t, said, "the journal of job-0, job-1 is in "+w.path("keywright.db"))
	line := advice(t, said)
	code, _, moveSaid = w.run(line...)
	require.Equal(t, 2, code)
	require.Contains(t, moveSaid, "the sealing key so far, "+w.path("keywright.seal")+", is not the one from now on")
	require.NoError(t, os.Remove(w.path("keys/seal")))

	code, _, said = w.run("--database", "./keywright.db")
	require.Equal(t, 2, code, said)
	require.Contains(t, said, "the sealing key "+w.path("keys/seal")+" is not there, but the database has the journal of job-0")
	lite := w.sqlite()
	unlock, err := lite.Exclusive(t.Context())
	require.NoError(t, err)
	code, _, moveSaid = w.run(line...)
	require.Equal(t, 1, code)
	require.Contains(t, moveSaid, "another process has the database")
	require.Contains(t, moveSaid, "stop it, and run this again")
	require.NoError(t, errors.Join(unlock(), lite.Close()))
	require.NoError(t, os.Remove(w.path("keys/seal"))) // which was copied
	code, out, moveSaid = w.run(line...)
	require.Zero(t, code, moveSaid)
	require.Contains(t, out, "moved 2 journals: job-0, job-1\n")
	require.Contains(t, out, "the sealing key was copied to "+w.path("keys/seal"))
	code, _, moveSaid = w.run(line...)
	require.NotZero(t, code, moveSaid)
	require.Contains(t, moveSaid, "the journals were moved to another database")
	code, _, said = w.run("--database", "./keywright.db")
	require.NotZero(t, code)
	require.Contains(t, said, "the journals were moved to another database")
	require.Contains(t, said, `do="name the one that they are in: --database`)

	st, err := store.OpenPostgres(t.Context(), postgres)
	require.NoError(t, err)
	defer st.Close()
	p = w.start("--database", postgres).ready()
	tokens := []string{w.token(0), w.token(1), w.token(2)}
	w.due(st, "job-2")
	p.rotated(tokens, 2)
	p.stop()
	engine, err := rotation.Open("", rotation.WithJournal(st.Journal("test")), rotation.WithSealer(rotation.SealKeyFile(w.path("keys/seal"))))
	require.NoError(t, err)
	for _, name := range []string{"job-0", "job-1", "job-2"} {
		status, err := engine.Status(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, 1, status.Generation, name)
	}
}

// Two daemons on PostgreSQL share the work; what one that is killed was at, the
// other ends.
func TestPostgres(t *testing.T) {
	t.Parallel()
	const pairs = 12
	w := newWorld(t, pairs)
	postgres := pgtest.Start(t)
	w.write("seal", strings.Repeat("0123456789abcdef", 4)+"\n")
	w.write("database", postgres+"\n")
	w.secrets = append(w.secrets, strings.Repeat("0123456789abcdef", 4))
	w.config(pairs, "journal: database\nseal_key: {file: seal}\n")
	b, err := os.ReadFile(w.path("keywright.yaml"))
	require.NoError(t, err)
	// One that needs an owner, and has one; one that has none.
	w.fake.AddKeys(2)
	w.write("token-owned", w.fake.TokenOf(2*pairs+1)+"\n")
	w.write("token-nobody", w.fake.TokenOf(2*pairs+2)+"\n")
	w.write("keywright.yaml", string(b)+fmt.Sprintf(`  - {name: owned, strategy: ricloud-overlap, key: %d, owner: w2, sinks: [{type: file, path: token-owned, lag: 0s}]}
  - {name: nobody, strategy: ricloud-overlap, key: %d, sinks: [{type: file, path: token-nobody, lag: 0s}]}
`, 2*pairs+1, 2*pairs+2))
	w.learn()
	code, _, said := w.run("check", "--database-file", "database", "--worker-id", "w1")
	require.Equal(t, 1, code)
	require.Contains(t, said, "nobody cannot be run: on PostgreSQL, ricloud-overlap needs the worker that owns it; write owner: WORKER-ID")

	st, err := store.OpenPostgres(t.Context(), postgres)
	require.NoError(t, err)
	defer st.Close()
	p := w.start("--database-file", "database").ready()
	p.awaitLog(`msg="the job cannot be run here" job=nobody`)
	p.awaitLog(`msg="other workers own jobs" jobs=1`)
	code, _, said = w.run("--database-file", "database", "--worker-id", "w1", "--listen", "off")
	require.Equal(t, 1, code)
	require.Contains(t, said, "another worker has this id")
	require.Contains(t, said, "--worker-id")
	q := w.start("--database-file", "database", "--worker-id", "w2").ready()
	require.Contains(t, q.log.String(), "database=postgres")

	var before, names []string
	for i := range pairs {
		before, names = append(before, w.token(i)), append(names, fmt.Sprintf("job-%d", i))
	}
	w.due(st, append(slices.Clone(names[:pairs-1]), "owned")...)
	done := func(of *process) int {
		return strings.Count(of.log.String(), `msg="rotation finished" job=`)
	}
	p.await("all rotations", func() bool { return done(p)+done(q) == pairs })
	t.Logf("%d by one, %d by the other", done(p), done(q))
	require.NotContains(t, p.log.String(), `msg="rotation finished" job=owned`)
	for i := range pairs - 1 {
		require.NotEqual(t, before[i], w.token(i))
	}
	w.learn()
	for _, r := range []*process{p, q} {
		code, _, body := r.get("/")
		require.Equal(t, 200, code)
		require.Contains(t, body, "owned")
		require.EqualValues(t, pairs, r.metrics().value(t, "keywright_jobs", "state", "DONE"))
	}

	q.stop()
	if os.Getenv("KEYWRIGHT_SOAK") != "" {
		// The first has the call under way when it is killed. River rescues its
		// job after two minutes.
		w.fake.Inject(keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.AfterApply, Do: keywrighttest.Stall})
		last := pairs - 1
		calls := w.fake.Applied("key.rotate")
		w.due(st, names[last])
		require.Eventually(t, func() bool { return w.fake.Applied("key.rotate") == calls+1 }, 2*time.Minute, 10*time.Millisecond)
		p.signal(syscall.SIGKILL)
		p.ended()
		begun := time.Now()
		q = w.start("--database-file", "database", "--worker-id", "w2").ready()
		require.Eventually(t, func() bool { return strings.Contains(q.log.String(), `msg="rotation finished" job=`+names[last]) }, 6*time.Minute, 100*time.Millisecond)
		t.Logf("taken over and ended %s after the other was killed", time.Since(begun).Round(time.Second))
		require.Equal(t, calls+2, w.fake.Applied("key.rotate"), "one token was issued, and one burnt")
		require.NotEqual(t, before[last], w.token(last))
		q.stop()
		return
	}
	p.stop()
}
