package page

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/keywright/keywright/jobs"
)

//go:embed templates/*.html
var templateFiles embed.FS

// parse reads the templates. They get texts of somebody else's through name,
// line, text and whole alone.
func parse() (*template.Template, error) {
	return template.New("").Funcs(template.FuncMap{
		"name":   func(s string) string { return clean(s, lengthName) },
		"line":   func(s string) string { return clean(s, lengthLine) },
		"text":   func(s string) string { return clean(s, lengthText) },
		"whole":  func(s string) string { return clean(s, lengthWhole) },
		"number": number,
	}).ParseFS(templateFiles, "templates/*.html")
}

// frame is what all pages have.
type frame struct {
	Title   string
	Style   template.CSS
	Base    string
	Worker  string
	Now     moment
	Refresh int // seconds; 0: not
	Paused  bool
	Toggle  string // stops the refreshing, or has it go on; empty: there is none
}

// frame makes one. toggle is the page with the refreshing stopped, or going on.
func (p *Page) frame(title string, now time.Time, busy, paused bool, toggle string) frame {
	v := frame{Title: clean(title, lengthTitle), Style: template.CSS(style), Base: p.base, Worker: p.source.WorkerID(), Now: at(now, now, toSecond), Paused: paused}
	every := RefreshIdle
	switch {
	case p.refresh != nil:
		every = *p.refresh
	case busy:
		every = RefreshBusy
	}
	if every > 0 {
		v.Toggle = toggle
	}
	if !paused {
		v.Refresh = int(every / time.Second)
	}
	return v
}

// message is the data of a page that says why there is no other.
type message struct {
	frame
	Home   string // empty: it is not to be had either
	Status int
	Text   string
}

func (p *Page) message(w http.ResponseWriter, r *http.Request, status int, title, text string) {
	// No worker, no time: this may be for anybody.
	v := &message{frame: frame{Title: title, Style: template.CSS(style), Base: p.base}, Status: status, Text: text}
	switch status {
	case http.StatusNotFound, http.StatusServiceUnavailable, http.StatusMethodNotAllowed:
		v.Home = p.home(nil)
	}
	if status == http.StatusServiceUnavailable && (p.refresh == nil || *p.refresh > 0) {
		v.Refresh = int(RefreshBusy / time.Second)
	}
	p.render(w, r, status, "message", v)
}

func (p *Page) notFound(w http.ResponseWriter, r *http.Request) {
	p.message(w, r, http.StatusNotFound, "There is no such page", "A key has a page for as long as it is in the schedule.")
}

// unavailable says why the source has no answer.
func (p *Page) unavailable(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return // nobody waits any more
	}
	p.log.LogAttrs(r.Context(), slog.LevelWarn, "the status page cannot be shown", slog.Any("error", err))
	w.Header().Set("Retry-After", strconv.Itoa(int(RefreshBusy/time.Second)))
	if errors.Is(err, jobs.ErrNotRunning) {
		p.message(w, r, http.StatusServiceUnavailable, "The worker is not running", "It has not started yet, or is stopping. How the keys stand is not known here until it runs.")
		return
	}
	p.message(w, r, http.StatusServiceUnavailable, "The database does not answer", "How the keys stand is in the database, and it cannot be read now. Rotations that are under way go on when it is back. The worker’s log has the reason.")
}

// render writes a page as a whole or not at all.
func (p *Page) render(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
	var b bytes.Buffer
	if err := p.templates.ExecuteTemplate(&b, name, data); err != nil {
		p.log.LogAttrs(r.Context(), slog.LevelError, "the status page cannot be rendered", slog.Any("error", err))
		http.Error(w, "The page cannot be shown.", http.StatusInternalServerError)
		return
	}
	p.write(w, r, status, "text/html; charset=utf-8", b.Bytes())
}

func (p *Page) write(w http.ResponseWriter, r *http.Request, status int, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // an error is the reader's
	}
}
