package page

import (
	"errors"
	"log/slog"
	"path"
	"strings"
	"time"

	"github.com/keywright/keywright"
)

// Option configures a [Page].
type Option func(*Page) error

// WithToken lets nobody see anything without the token. Without this option the
// page is for this machine alone.
func WithToken(token keywright.Secret) Option {
	return func(p *Page) error {
		if token.IsZero() {
			return errors.New("page: the token is empty")
		}
		p.token = token
		return nil
	}
}

// WithClock sets where the time of day comes from, for tests and demonstrations.
func WithClock(now func() time.Time) Option {
	return func(p *Page) error {
		if now == nil {
			return errors.New("page: clock must not be nil")
		}
		p.now = now
		return nil
	}
}

// WithLogger logs what cannot be shown, and requests with a wrong token, of these
// one in a minute.
func WithLogger(l *slog.Logger) Option {
	return func(p *Page) error {
		if l == nil {
			return errors.New("page: logger must not be nil")
		}
		p.log = l
		return nil
	}
}

// WithRefresh sets after how long the page loads itself again, in whole seconds;
// 0: it does not. If not given, that is [RefreshBusy] while something is under
// way and [RefreshIdle] else. Every page has a link that stops it.
func WithRefresh(d time.Duration) Option {
	return func(p *Page) error {
		if d < 0 || d > 0 && d < time.Second {
			return errors.New("page: a refresh takes a second")
		}
		p.refresh = &d
		return nil
	}
}

// WithBase sets the path that the page is served under, such as "/rotation". A
// request has it in its path: it is not to be stripped before.
func WithBase(prefix string) Option {
	return func(p *Page) error {
		prefix = strings.TrimSuffix(prefix, "/")
		if prefix != "" && (prefix[0] != '/' || path.Clean(prefix) != prefix || strings.Trim(prefix, baseCharacters) != "") {
			return errors.New("page: a base is a path of letters, digits, dots, hyphens and underscores, as /rotation")
		}
		p.base = prefix
		return nil
	}
}

// baseCharacters need no escaping in a path, in HTML, or anywhere.
const baseCharacters = "/abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
