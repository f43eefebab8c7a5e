package jobs

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// quietFor is how long a warning is not repeated.
const quietFor = time.Minute

// quiet makes River's log one for people: a warning or an error comes once a
// minute, whatever its attributes, because there are several a second while the
// database is away; and what is less, such as counts every few seconds, is for
// who debugs.
func quiet(l *slog.Logger) *slog.Logger {
	return slog.New(quietHandler{l.Handler(), &lines{last: make(map[string]time.Time)}})
}

type quietHandler struct {
	slog.Handler
	*lines
}

// lines are when each message was passed on last. River has a few dozen.
type lines struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (h quietHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.Handler.Enabled(ctx, lower(l))
}

// lower is the level that something has here.
func lower(l slog.Level) slog.Level {
	if l < slog.LevelWarn {
		return min(l, slog.LevelDebug)
	}
	return l
}

func (h quietHandler) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lower(r.Level)
	if r.Level >= slog.LevelWarn && h.seen(r.Message) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// seen reports whether a message was passed on within the last minute.
func (l *lines) seen(message string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if last, there := l.last[message]; there && now.Sub(last) < quietFor {
		return true
	}
	l.last[message] = now
	return false
}

func (h quietHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quietHandler{h.Handler.WithAttrs(attrs), h.lines}
}

func (h quietHandler) WithGroup(name string) slog.Handler {
	return quietHandler{h.Handler.WithGroup(name), h.lines}
}
