//go:build unix

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/store"
)

// A person triggers a rotation, takes it back while it is under way, and
// triggers another.
func TestOperate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.write("readers", "#!/bin/sh\ntest -e "+w.path("restarted")+" || exit 75\n")
	require.NoError(t, os.Chmod(w.path("readers"), 0o700))
	b, err := os.ReadFile(w.path("keywright.yaml"))
	require.NoError(t, err)
	w.write("keywright.yaml", strings.TrimSuffix(string(b), "}\n")+", acknowledge: {command: [./readers]}}\n")
	code, _, stderr := w.run("trigger", "job-0")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "there is no database at "+w.path("keywright.db"))

	before := w.token(0)
	p := w.start().ready()
	for _, args := range [][]string{{"trigger"}, {"trigger", "job-0", "job-1"}, {"rollback"}} {
		code, _, stderr := w.run(args...)
		require.Equal(t, 2, code)
		require.Contains(t, stderr, args[0]+" takes the name of one job")
	}
	code, _, stderr = w.run("trigger", "jobb-0")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, `did you mean "job-0"?`)
	code, _, stderr = w.run("rollback", "job-0")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "nothing is under way")

	code, stdout, stderr := w.run("trigger", "job-0")
	require.Zero(t, code, stderr)
	require.Equal(t, "job-0 is run as soon as a worker is free\n", stdout)
	p.await("the readers to be asked", func() bool { return w.token(0) != before })
	w.learn()
	code, stdout, stderr = w.run("rollback", "job-0")
	require.Zero(t, code, stderr)
	require.Equal(t, "job-0: ROLLED_BACK; the schedule leaves it alone for a day\n", stdout)
	require.Equal(t, before, w.token(0))
	_, _, body := p.get("/keys/job-0")
	require.Contains(t, body, "rolled back by hand")

	w.write("restarted", "")
	code, _, stderr = w.run("trigger", "job-0")
	require.Zero(t, code, stderr)
	p.rotated([]string{before}, 0)

	code, _, stderr = w.run("forget", "job-0")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "job-0 is in the file")
	st := w.sqlite()
	require.NoError(t, st.Put(t.Context(), store.Schedule{Job: "of-old"})) // as if another file had had it
	require.NoError(t, st.Close())
	code, stdout, stderr = w.run("forget", "of-old")
	require.Zero(t, code, stderr)
	require.Equal(t, "of-old is forgotten\n", stdout)
	code, _, stderr = w.run("forget", "of-old")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "of-old is not in the schedule")
	p.stop()
}
