//go:build unix

package jobs

import (
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A worker that was stopped for longer than its lease and the rescue time, and
// continues when another has taken over, sends nothing: wherever it was.
func TestStoppedPostgres(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"before POST /keys/2/rotate", "before POST /keys/1/rotate", "DISTRIBUTING"} {
		t.Run(strings.ReplaceAll(point, "/", " "), func(t *testing.T) {
			t.Parallel()
			s := newScene(t, postgresAt(t), "paired")
			first, second := s.childSettings, s.childSettings
			first.Trigger, first.StopAt, second.Worker = true, point, "w2"
			p := first.spawn(t)
			p.until("staying " + point)
			require.NoError(t, p.cmd.Process.Signal(syscall.SIGSTOP))
			var status syscall.WaitStatus // threads run on for a moment
			_, err := syscall.Wait4(p.cmd.Process.Pid, &status, syscall.WUNTRACED, nil)
			require.NoError(t, err)
			require.True(t, status.Stopped())
			_, err = io.WriteString(p.in, "go on\n") // when it can
			require.NoError(t, err)
			sent := s.by("w1")
			q := second.spawn(t)
			q.until("result DONE")
			before := len(s.fake.Requests())
			require.Equal(t, sent, s.by("w1"))
			require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
			if strings.HasPrefix(point, "before") {
				p.until("late")
			}
			p.stop()
			require.Equal(t, sent, s.by("w1"), "what the worker sent that was stopped")
			require.Len(t, s.fake.Requests(), before)
			q.stop()
			s.over(t)
		})
	}
}
