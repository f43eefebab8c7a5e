package page_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/page"
	"github.com/keywright/keywright/rotation"
)

func underWay(name string, state rotation.State, left time.Duration) jobs.Status {
	s := jobs.Status{Job: name, State: string(state), Due: in(20 * time.Minute), Rotation: &rotation.Status{State: state, Issued: ago(time.Hour)}}
	if left != 0 {
		s.Rotation.Deadline = in(left)
	}
	return s
}

func TestOverview_order(t *testing.T) {
	t.Parallel()
	stuck := func(name string, left time.Duration) jobs.Status {
		s := underWay(name, rotation.StateStuck, left)
		s.Rotation.Resume = rotation.StateDistributing
		return s
	}
	want := []jobs.Status{
		stuck("stuck-over", -time.Hour), stuck("stuck-soon", time.Hour), stuck("stuck-later", 2*time.Hour),
		{Job: "stuck-in-row", State: "STUCK", Due: in(time.Hour)}, // its journal was not asked
		{Job: "expired", State: "DONE", Expires: ago(time.Second), Due: in(2 * time.Hour)},
		stuck("stuck-without-end", 0),
		underWay("ways-short", rotation.StateDistributing, time.Minute), underWay("ways-long", rotation.StateResolving, time.Hour),
		underWay("ways-a", rotation.StateRetiring, 0),
		{Job: "ways-begins", State: "DONE", Running: true, Overdue: true, Due: ago(time.Second)},
		{Job: "ways-journal", State: "CONVERGING", Due: ago(time.Hour), Overdue: true}, // its journal cannot be read
		underWay("ways-z", rotation.StateRollingBack, 0),
		{Job: "failed", State: jobs.StateFailed, Due: in(time.Minute), Attempts: 4},
		{Job: "rolled-back", State: "ROLLED_BACK", Due: in(time.Hour)},
		{Job: "refused", State: jobs.StateRefused},
		{Job: "due-long", State: "DONE", Overdue: true, Due: ago(time.Hour)}, {Job: "due-a", Overdue: true, Due: ago(time.Second)}, {Job: "due-b", Overdue: true, Due: ago(time.Second)},
		{Job: "soon", State: "DONE", Due: in(time.Hour)}, {Job: "new", Due: in(2 * time.Hour)}, {Job: "by-hand", State: "DONE"},
	}
	// The last of the stuck has a due time, as the row of a runner does.
	want[5].Due = in(3 * time.Hour)
	var names []string
	for _, s := range want {
		names = append(names, s.Job)
	}
	for i := range 5 {
		f := &fake{all: slices.Clone(want)}
		for j := range f.all { // in any order
			k := (j*7 + i) % len(f.all)
			f.all[j], f.all[k] = f.all[k], f.all[j]
		}
		doc := show(t, newPage(t, f), "/")
		require.Equal(t, names, doc.names())
		require.Equal(t, "6 keys need a person", doc.one(t, "h1", "").text)
		var counts []string
		for _, a := range doc.all("a", "") {
			if a.inside("ul", "counts") {
				counts = append(counts, a.text)
			}
		}
		require.Equal(t, []string{"6 Needs a person", "6 Under way", "3 Failed or refused", "3 Due", "3 Healthy"}, counts)
	}
}

func TestOverview_words(t *testing.T) {
	t.Parallel()
	words := map[string]jobs.Status{
		"Healthy": {State: "DONE"}, "Not rotated yet": {}, "Due": {Overdue: true, Due: ago(1)}, "Failed": {State: jobs.StateFailed}, "Refused": {State: jobs.StateRefused},
		"Rolled back": {State: "ROLLED_BACK"}, "Expired": {State: jobs.StateFailed, Expires: ago(1)}, "Beginning": {Running: true}, "WHAT_IS_NEW": {State: "WHAT_IS_NEW"},
	}
	for state, text := range map[rotation.State]string{
		rotation.StatePlanned: "Checked, nothing sent", rotation.StateIntent: "Asking for a token", rotation.StateResolving: "Finding out the answer",
		rotation.StateIssued: "Token issued", rotation.StateVerified: "Token accepted", rotation.StateDistributing: "Delivering", rotation.StateConverging: "Waiting for readers",
		rotation.StateRetiring: "Retiring the old token", rotation.StateRollingBack: "Rolling back", rotation.StateStuck: "Stuck",
	} {
		words[text] = underWay("", state, 0)
	}
	for text, s := range words {
		s.Job = "k"
		doc := show(t, newPage(t, &fake{all: []jobs.Status{s}}), "/")
		// The words stand beside the mark: nothing is told by a colour alone.
		require.Equal(t, text, doc.one(t, "span", "words").text)
		doc = show(t, newPage(t, &fake{all: []jobs.Status{s}}), "/keys/k")
		require.Contains(t, doc.one(t, "p", "standing").text, text)
	}
}

func TestOverview_row(t *testing.T) {
	t.Parallel()
	s := underWay("ledger", rotation.StateDistributing, 3*time.Hour)
	s.Provider, s.Strategy, s.Issued, s.LastRun = "ricloud", "ricloud-overlap", ago(31*day), ago(12*time.Second)
	s.Rotation.Problem = "the vault is sealed"
	s.Rotation.Sinks = []rotation.SinkStatus{{Name: "file a", State: rotation.SinkConfirmed, Confirmed: ago(time.Minute)}, {Name: "vault b", State: rotation.SinkWriting}, {Name: "file c"}}
	cells := func(s jobs.Status) (texts []string) {
		doc := show(t, newPage(t, &fake{all: []jobs.Status{s}}), "/")
		for _, e := range doc.all("td", "") {
			texts = append(texts, e.text)
		}
		return texts
	}
	require.Equal(t, []string{"Delivering the vault is sealed", "31 d", "", "3 h of 4 h left", "1 of 3 confirmed", "A step, 12 s ago"}, cells(s))
	doc := show(t, newPage(t, &fake{all: []jobs.Status{s}}), "/")
	require.Equal(t, "75.0", doc.one(t, "rect", "fill").attrs["width"])
	require.Equal(t, "Not confirmed: vault b, file c", func() string {
		for _, e := range doc.all("span", "") {
			if e.attrs["title"] != "" {
				return e.attrs["title"]
			}
		}
		return ""
	}())

	s.Rotation.Deadline = ago(5 * time.Minute)
	require.Contains(t, cells(s), "Over, 5 min ago")
	s.Rotation.Deadline = time.Time{}
	require.Contains(t, cells(s), "no deadline")
	// The token has not been issued: what is known is the end alone.
	s.Rotation.State, s.Rotation.Deadline = rotation.StateResolving, in(time.Hour)
	require.Contains(t, cells(s), "1 h left")
	// Clocks differ: the bar is full, and no longer than that.
	s.Rotation.State, s.Rotation.Issued = rotation.StateIssued, in(30*time.Minute)
	doc = show(t, newPage(t, &fake{all: []jobs.Status{s}}), "/")
	require.Equal(t, "100.0", doc.one(t, "rect", "fill").attrs["width"])

	require.Equal(t, []string{"Failed what went wrong expires in 2 d", "", "in 11 min 2026-11-22 11:13 UTC, tried again", "", "", "Failed, 4 min ago 3 failed in a row"}, cells(jobs.Status{
		Job: "k", State: jobs.StateFailed, Problem: "what went wrong", Attempts: 3, Due: in(11 * time.Minute), Reason: "every 30d", LastRun: ago(4 * time.Minute), Expires: in(2 * day),
	}))
	require.Equal(t, []string{"Healthy", "30 d", "in 5 d 2026-11-27 11:02 UTC, every 30d", "", "", "Done, 30 d ago"}, cells(jobs.Status{
		Job: "k", State: "DONE", Issued: ago(30 * day), Due: in(5 * day), Reason: "every 30d", LastRun: ago(30 * day),
	}))
	// That another worker runs it is no news; that nobody can, is.
	require.Equal(t, "Healthy", cells(jobs.Status{Job: "k", State: "DONE", Owner: "worker-b", Blocked: "it is worker-b's"})[0])
	require.Equal(t, "Healthy Not run here: no token", cells(jobs.Status{Job: "k", State: "DONE", Blocked: "no token"})[0])
}

func TestOverview_pages(t *testing.T) {
	t.Parallel()
	f := new(fake)
	for i := range 250 {
		s := jobs.Status{Job: fmt.Sprintf("k%03d", i), State: "DONE", Provider: "ricloud", Due: in(day)}
		if i%2 == 1 {
			s.State, s.Provider = jobs.StateFailed, "acedata"
		}
		f.all = append(f.all, s)
	}
	p := newPage(t, f)
	for _, c := range []struct {
		query string
		rows  int
		text  string
		links []string
	}{
		{"", 100, "1 to 100 of 250, page 1 of 3", []string{"Next /?page=2", "Last /?page=3"}},
		{"?page=2", 100, "101 to 200 of 250, page 2 of 3", []string{"First /", "Previous /", "Next /?page=3", "Last /?page=3"}},
		{"?page=3", 50, "201 to 250 of 250, page 3 of 3", []string{"First /", "Previous /?page=2"}},
		{"?page=99999999999999999999", 100, "1 to 100 of 250, page 1 of 3", []string{"Next /?page=2", "Last /?page=3"}},
		{"?page=4000000", 50, "201 to 250 of 250, page 3 of 3", []string{"First /", "Previous /?page=2"}},
		{"?page=-1&state=nothing&q=+", 100, "1 to 100 of 250, page 1 of 3", []string{"Next /?page=2", "Last /?page=3"}},
		{"?state=failed", 100, "1 to 100 of 125 that match, page 1 of 2", []string{"Next /?page=2&state=failed", "Last /?page=2&state=failed"}},
		{"?state=failed&page=2&refresh=off", 25, "101 to 125 of 125 that match, page 2 of 2", []string{"First /?refresh=off&state=failed", "Previous /?refresh=off&state=failed"}},
		{"?q=ACE", 100, "1 to 100 of 125 that match, page 1 of 2", []string{"Next /?page=2&q=ACE", "Last /?page=2&q=ACE"}},
		{"?q=k00&state=healthy", 5, "1 to 5 of 5 that match", nil},
		{"?q=%00%26x", 0, "", nil},
	} {
		doc := show(t, p, "/"+c.query)
		require.Len(t, doc.names(), c.rows, c.query)
		if c.rows == 0 {
			require.Contains(t, doc.one(t, "section", "nothing").text, "No key matches")
			continue
		}
		require.Equal(t, c.text, func() string {
			for _, e := range doc.all("p", "") {
				if e.inside("nav", "pages") {
					return e.text
				}
			}
			return ""
		}(), c.query)
		var links []string
		for _, e := range doc.all("a", "") {
			if e.inside("nav", "pages") {
				links = append(links, e.text+" "+e.attrs["href"])
			}
		}
		require.Equal(t, c.links, links, c.query)
	}
	// Each key is on one page.
	seen := make(map[string]bool)
	for n := range 3 {
		for _, name := range show(t, p, fmt.Sprintf("/?page=%d", n+1)).names() {
			require.False(t, seen[name])
			seen[name] = true
		}
	}
	require.Len(t, seen, 250)
}

func TestOverview_filterIsKept(t *testing.T) {
	t.Parallel()
	p := newPage(t, &fake{all: []jobs.Status{{Job: `a"B`, State: "DONE"}, {Job: "other", State: "DONE"}}})
	doc := show(t, p, "/?state=healthy&refresh=off&q="+url.QueryEscape(`A"b`))
	require.Equal(t, []string{`a"B`}, doc.names())
	for _, e := range doc.all("input", "") {
		switch e.attrs["name"] {
		case "q":
			require.Equal(t, `A"b`, e.attrs["value"])
		case "refresh":
			require.Equal(t, "off", e.attrs["value"])
		}
	}
	for _, e := range doc.all("option", "") {
		require.Equal(t, e.attrs["value"] == "healthy", e.attrs["selected"] != "", e.text)
	}
	require.Equal(t, "true", doc.one(t, "a", "healthy").attrs["aria-current"])
	require.Equal(t, "GET", strings.ToUpper(doc.one(t, "form", "").attrs["method"]))
}

func TestOverview_empty(t *testing.T) {
	t.Parallel()
	doc := show(t, newPage(t, new(fake)), "/")
	require.Equal(t, "No keys yet", doc.one(t, "h1", "").text)
	require.Contains(t, doc.one(t, "section", "nothing").text, "keywright.yaml")
	require.Empty(t, doc.all("form", ""))
}

func TestOverview_headline(t *testing.T) {
	t.Parallel()
	good := jobs.Status{State: "DONE"}
	due, ways, bad, worst := good, underWay("", rotation.StateIssued, 0), good, good
	due.Overdue, bad.State, worst.State = true, jobs.StateFailed, "STUCK"
	for want, all := range map[string][]jobs.Status{
		"The key is healthy":         {good},
		"All 1,200 keys are healthy": slices.Repeat([]jobs.Status{good}, 1200),
		"One key is due":             {good, due}, "2 keys are due": {due, due},
		"One key is being rotated": {good, due, ways}, "2 keys are being rotated": {ways, ways},
		"One key failed or was refused": {ways, bad, due}, "2 keys failed or were refused": {bad, bad},
		"One key needs a person": {bad, worst, ways}, "2 keys need a person": {worst, worst, bad},
	} {
		for i := range all {
			all[i].Job = fmt.Sprint("k", i)
		}
		doc := show(t, newPage(t, &fake{all: all}), "/")
		assert.Equal(t, want, doc.one(t, "h1", "").text)
		assert.Equal(t, want+" · keywright", doc.one(t, "title", "").text)
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	refresh := func(target string, f *fake, opts ...page.Option) (every string, links []string) {
		doc := show(t, newPage(t, f, opts...), target)
		for _, e := range doc.all("meta", "") {
			if e.attrs["http-equiv"] == "refresh" {
				every = e.attrs["content"]
			}
		}
		for _, e := range doc.all("a", "") {
			if e.inside("span", "live") {
				links = append(links, e.text+" "+e.attrs["href"])
			}
		}
		return every, links
	}
	idle := &fake{all: []jobs.Status{{Job: "a", State: "DONE"}}}
	busy := &fake{all: []jobs.Status{underWay("a", rotation.StateIssued, 0)}}
	for _, c := range []struct {
		target string
		f      *fake
		opts   []page.Option
		every  string
		link   string
	}{
		{"/", idle, nil, "60", "Stop /?refresh=off"},
		{"/", busy, nil, "10", "Stop /?refresh=off"},
		{"/?q=a", busy, nil, "10", "Stop /?q=a&refresh=off"},
		{"/?refresh=off&q=a", busy, nil, "", "Refresh /?q=a"},
		{"/keys/a", idle, nil, "60", "Stop /keys/a?refresh=off"},
		{"/keys/a", busy, nil, "10", "Stop /keys/a?refresh=off"},
		{"/keys/a?refresh=off", busy, nil, "", "Refresh /keys/a"},
		{"/", busy, []page.Option{page.WithRefresh(7 * time.Second)}, "7", "Stop /?refresh=off"},
		{"/", busy, []page.Option{page.WithRefresh(0)}, "", ""},
		{"/?refresh=off", busy, []page.Option{page.WithRefresh(0)}, "", ""},
		{"/keys/a", busy, []page.Option{page.WithRefresh(0)}, "", ""},
	} {
		every, links := refresh(c.target, c.f, c.opts...)
		require.Equal(t, c.every, every, c.target)
		require.Equal(t, c.link, strings.Join(links, " "), c.target)
	}
	// A page that has nothing to show looks again.
	away := newPage(t, &fake{err: fmt.Errorf("away")})
	require.Contains(t, get(away, "/").Body.String(), `http-equiv="refresh" content="10"`)
	away = newPage(t, &fake{err: fmt.Errorf("away")}, page.WithRefresh(0))
	require.NotContains(t, get(away, "/").Body.String(), `http-equiv`)
}

func TestBase(t *testing.T) {
	t.Parallel()
	p := newPage(t, &fake{all: []jobs.Status{{Job: "a/b", State: "DONE"}}}, page.WithBase("/ops/rotation/"))
	for target, status := range map[string]int{"/ops/rotation/": 200, "/ops/rotation": 200, "/ops/rotation/keys/a%2Fb": 200, "/ops/rotation/icon.svg": 200, "/": 404, "/keys/a%2Fb": 404, "/ops/rotations/": 404, "/icon.svg": 404} {
		require.Equal(t, status, get(p, target).Code, target)
	}
	for _, target := range []string{"/ops/rotation/", "/ops/rotation/keys/a%2Fb"} {
		for _, e := range show(t, p, target) {
			for _, name := range []string{"href", "action"} {
				if link := e.attrs[name]; link != "" && !strings.HasPrefix(link, "#") {
					require.True(t, strings.HasPrefix(link, "/ops/rotation/"), link)
				}
			}
		}
	}
	require.Equal(t, http.StatusOK, get(p, show(t, p, "/ops/rotation/").all("a", "")[1].attrs["href"]).Code)
}
