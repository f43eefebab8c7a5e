package page

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/store"
)

// How often the page loads itself again, if [WithRefresh] does not say.
const (
	RefreshBusy = 10 * time.Second // while something is under way
	RefreshIdle = time.Minute      // else
)

// Bounds of what one request costs.
const (
	patience = 10 * time.Second // for the source and the history
	atOnce   = 4                // requests that ask them; others wait for as long as patience lasts
)

// Source is where the page takes its state from; a [*jobs.Runner] is one.
type Source interface {
	// Snapshot returns how all jobs stand.
	Snapshot(ctx context.Context) ([]jobs.Status, error)
	// Status returns how one stands; the error matches [jobs.ErrUnknown] if
	// there is none.
	Status(ctx context.Context, job string) (jobs.Status, error)
	// WorkerID names the worker.
	WorkerID() string
}

// History is what has happened; a [*store.Store] is one.
type History interface {
	// Runs returns at most limit runs of a job, the latest first.
	Runs(ctx context.Context, job string, limit int) ([]store.Run, error)
	// Events returns at most limit events of a job, the latest first.
	Events(ctx context.Context, job string, limit int) ([]store.Event, error)
}

// Page serves the status page. Make one with [New]; it is safe for concurrent
// use.
type Page struct {
	source  Source
	history History

	token   keywright.Secret
	now     func() time.Time
	log     *slog.Logger
	refresh *time.Duration // nil: as it goes
	base    string         // without a slash at the end

	templates *template.Template
	policy    string        // Content-Security-Policy
	room      chan struct{} // one for each request that asks the source
	told      atomic.Int64  // when a wrong token was logged last, in seconds
}

//go:embed style.css
var style string

//go:embed icon.svg
var icon []byte

// New returns a page of what source and history say. It does no I/O.
func New(source Source, history History, opts ...Option) (*Page, error) {
	if source == nil || history == nil {
		return nil, errors.New("page: a source and a history are required")
	}
	p := &Page{source: source, history: history, now: time.Now, log: slog.New(slog.DiscardHandler), room: make(chan struct{}, atOnce)}
	for _, opt := range opts {
		if err := opt(p); err != nil {
			return nil, err
		}
	}
	var err error
	if p.templates, err = parse(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(style))
	p.policy = "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
	return p, nil
}

// ServeHTTP answers a request.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.headers(w.Header())
	if !p.admit(w, r) {
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		p.message(w, r, http.StatusMethodNotAllowed, "This page only shows", "It changes nothing, whatever is sent to it.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	r = r.WithContext(ctx)
	// The path as it was sent: a name may have a slash.
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), p.base)
	key, isKey := strings.CutPrefix(path, "/keys/")
	switch {
	case !ok:
		p.notFound(w, r)
	case path == "/" || path == "" && p.base != "":
		p.serveOverview(w, r)
	case path == "/icon.svg":
		p.write(w, r, http.StatusOK, "image/svg+xml", icon)
	case isKey:
		name, err := url.PathUnescape(key)
		if err != nil || name == "" {
			p.notFound(w, r)
			return
		}
		p.serveKey(w, r, name)
	default:
		p.notFound(w, r)
	}
}

// ask runs f, which asks the source, when there is room.
func (p *Page) ask(ctx context.Context, f func() error) error {
	select {
	case p.room <- struct{}{}:
		defer func() { <-p.room }()
		return f()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// home is the path of the overview, with a query that may be empty.
func (p *Page) home(query url.Values) string {
	if len(query) == 0 {
		return p.base + "/"
	}
	return p.base + "/?" + query.Encode()
}

// keyPath is the path of a key's page; empty if it can have none. Browsers take
// dots for a directory, however they are escaped. No job has such a name.
func (p *Page) keyPath(name string) string {
	if name == "" || name == "." || name == ".." {
		return ""
	}
	return p.base + "/keys/" + url.PathEscape(name)
}
