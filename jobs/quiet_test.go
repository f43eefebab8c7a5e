package jobs

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A warning that comes again and again is logged once a minute; what is not one,
// if one debugs.
func TestQuiet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := quiet(slog.New(slog.NewTextHandler(&out, nil)))
		debug := quiet(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
		for i := range 130 {
			l.With("queue", i).WithGroup("g").Error("away", "i", i)
			l.Warn("slow")
			l.Info("here")
			debug.Info("there")
			time.Sleep(time.Second)
		}
		require.Equal(t, 3, strings.Count(out.String(), "msg=away"))
		require.Equal(t, 3, strings.Count(out.String(), "msg=slow"))
		require.NotContains(t, out.String(), "msg=here")
		require.Equal(t, 130, strings.Count(out.String(), "level=DEBUG msg=there"))
		require.Contains(t, out.String(), "queue=120 g.i=120")
	})
}
