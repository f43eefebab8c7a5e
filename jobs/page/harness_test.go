package page_test

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/page"
	"github.com/keywright/keywright/jobs/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What the page takes its state from in the service.
var (
	_ page.Source  = (*jobs.Runner)(nil)
	_ page.History = (*store.Store)(nil)
)

var now = time.Date(2026, 11, 22, 11, 2, 41, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }
func in(d time.Duration) time.Time  { return now.Add(d) }

const day = 24 * time.Hour

// fake is a source and a history.
type fake struct {
	all      []jobs.Status
	events   []store.Event
	runs     []store.Run
	err      error                       // of the source
	history  error                       // of the history
	snapshot func(context.Context) error // called in Snapshot
	worker   string                      // the worker's id; "worker-a" if empty
}

func (f *fake) Snapshot(ctx context.Context) ([]jobs.Status, error) {
	if f.snapshot != nil {
		if err := f.snapshot(ctx); err != nil {
			return nil, err
		}
	}
	return slices.Clone(f.all), f.err
}

func (f *fake) Status(_ context.Context, job string) (jobs.Status, error) {
	for _, s := range f.all {
		if s.Job == job {
			return s, f.err
		}
	}
	return jobs.Status{}, errors.Join(f.err, fmt.Errorf("%w: %q", jobs.ErrUnknown, job))
}

func (f *fake) WorkerID() string { return cmp.Or(f.worker, "worker-a") }

func (f *fake) Events(_ context.Context, _ string, limit int) ([]store.Event, error) {
	return f.events[:min(limit, len(f.events))], f.history
}

func (f *fake) Runs(_ context.Context, _ string, limit int) ([]store.Run, error) {
	return f.runs[:min(limit, len(f.runs))], f.history
}

func newPage(t testing.TB, f *fake, opts ...page.Option) *page.Page {
	t.Helper()
	p, err := page.New(f, f, append([]page.Option{page.WithClock(func() time.Time { return now })}, opts...)...)
	require.NoError(t, err)
	return p
}

// request sends a request to this machine, changed as edit says.
func request(p http.Handler, method, target string, edit func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Host = "localhost:8477"
	if edit != nil {
		edit(r)
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

func get(p http.Handler, target string) *httptest.ResponseRecorder {
	return request(p, http.MethodGet, target, nil)
}

// element is one of a page.
type element struct {
	name  string
	attrs map[string]string
	text  string // with that of its children, on one line
	up    *element
}

// inside reports whether an element with this name, and class if one is given,
// is above.
func (e *element) inside(name, class string) bool {
	for up := e.up; up != nil; up = up.up {
		if up.name == name && (class == "" || up.has(class)) {
			return true
		}
	}
	return false
}

func (e *element) has(class string) bool {
	return slices.Contains(strings.Fields(e.attrs["class"]), class)
}

// document is a page that was parsed.
type document []*element

// known is all markup that a page may have.
var known = map[string]string{ // element: its attributes
	"html": "lang", "head": "", "meta": "charset name content http-equiv", "title": "", "link": "rel type href", "style": "", "body": "",
	"a": "class href aria-current rel", "svg": "class aria-hidden focusable viewBox preserveAspectRatio", "symbol": "id viewBox", "use": "href",
	"path": "fill fill-rule d stroke stroke-width stroke-linecap stroke-linejoin", "circle": "cx cy r fill stroke stroke-width",
	"rect": "x y width height rx fill stroke stroke-width class", "g": "fill stroke stroke-width stroke-linecap",
	"header": "class", "main": "id class", "nav": "aria-label class", "footer": "", "section": "class aria-labelledby", "div": "class",
	"h1": "", "h2": "id", "h3": "", "p": "class", "ul": "class", "ol": "class", "li": "class", "pre": "", "code": "", "bdi": "",
	"span": "class title", "time": "datetime title", "dl": "class", "dt": "", "dd": "",
	"form": "class method action role", "label": "for", "input": "id name type value maxlength autocomplete autocapitalize spellcheck placeholder",
	"select": "id name", "option": "value selected", "button": "type",
	"table": "class role aria-label aria-labelledby", "thead": "role", "tbody": "role class", "tr": "class role", "th": "class role scope colspan", "td": "class role data-label",
}

// parse reads a page as strictly as XML is read, and fails on markup that none
// of the templates has.
func parse(t testing.TB, body string) document {
	t.Helper()
	var doc document
	var open *element
	d := xml.NewDecoder(strings.NewReader(body))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err, "the markup is balanced")
		switch token := token.(type) {
		case xml.StartElement:
			allowed, ok := known[token.Name.Local]
			require.True(t, ok, "element %s", token.Name.Local)
			e := &element{name: token.Name.Local, attrs: make(map[string]string), up: open}
			for _, a := range token.Attr {
				require.Contains(t, strings.Fields(allowed), a.Name.Local, "of element %s", e.name)
				e.attrs[a.Name.Local] = a.Value
			}
			doc, open = append(doc, e), e
		case xml.EndElement:
			open.text = strings.Join(strings.Fields(open.text), " ")
			if open.up != nil {
				open.up.text += " " + open.text
			}
			open = open.up
		case xml.CharData:
			if open != nil {
				open.text += string(token)
			}
		}
	}
	require.Nil(t, open)
	for _, e := range doc {
		for _, name := range []string{"href", "action"} {
			link, ok := e.attrs[name]
			if !ok {
				continue
			}
			u, err := url.Parse(link)
			require.NoError(t, err, link)
			require.Empty(t, u.Scheme+u.Host+u.Opaque, link)
			require.True(t, strings.HasPrefix(link, "/") && !strings.HasPrefix(link, "//") || strings.HasPrefix(link, "#"), link)
		}
		if iso, ok := e.attrs["datetime"]; ok {
			_, err := time.Parse(time.RFC3339, iso)
			require.NoError(t, err)
		}
	}
	return doc
}

// all returns the elements with a name, and a class if one is given.
func (d document) all(name, class string) (found document) {
	for _, e := range d {
		if e.name == name && (class == "" || e.has(class)) {
			found = append(found, e)
		}
	}
	return found
}

// one is the only element with a name and class.
func (d document) one(t testing.TB, name, class string) *element {
	t.Helper()
	found := d.all(name, class)
	require.Len(t, found, 1, "%s.%s", name, class)
	return found[0]
}

// names are those of the keys of an overview, in order.
func (d document) names() (names []string) {
	for _, e := range d {
		if e.name == "bdi" && e.inside("th", "name") && !e.inside("span", "sub") {
			names = append(names, e.text)
		}
	}
	return names
}

// show gets a page that there is, and parses it.
func show(t testing.TB, p http.Handler, target string) document {
	t.Helper()
	w := get(p, target)
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	return parse(t, w.Body.String())
}
