package page

import (
	"cmp"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keywright/keywright/jobs"
)

// perPage is how many keys are on a page of the overview.
const perPage = 100

// entry is a key in the order of the overview. There is one for each key, so it
// is small.
type entry struct {
	job      *jobs.Status
	group    group
	words    string
	deadline int64 // seconds; the greatest: none
	due      int64 // likewise
}

func newEntry(s *jobs.Status, now time.Time) entry {
	e := entry{job: s, deadline: math.MaxInt64, due: math.MaxInt64}
	e.group, e.words = standing(s, expired(s, now))
	if s.UnderWay() && !s.Rotation.Deadline.IsZero() {
		e.deadline = s.Rotation.Deadline.Unix()
	}
	if !s.Due.IsZero() && e.group != groupRunning {
		e.due = s.Due.Unix()
	}
	return e
}

func expired(s *jobs.Status, now time.Time) bool { return !s.Expires.IsZero() && !s.Expires.After(now) }

// compare has what needs a person first, then by group; in each group the
// window that ends first, then what is due first, then by name.
func (e entry) compare(o entry) int {
	return cmp.Or(cmp.Compare(e.group, o.group), cmp.Compare(e.deadline, o.deadline), cmp.Compare(e.due, o.due), strings.Compare(e.job.Job, o.job.Job))
}

// overview is the data of the template.
type overview struct {
	frame
	Headline string
	Lead     string // whose mark the headline has; empty: none
	Total    int
	Counts   []count
	Filter   filter
	Sections []section
	Found    int
	From, To int // which of those are shown, from 1
	Pages    pager
	Clear    string
}

// count is a group with the number of its keys.
type count struct {
	Group   group
	N       int
	Href    string
	Current bool
}

// section is a run of keys of one group.
type section struct {
	Group group
	N     int // keys of the group, of those that were found
	Rows  []row
}

// pager has the links to other pages; empty: there is none.
type pager struct {
	Number, Count              int
	First, Before, Next, Final string
}

func (p *Page) serveOverview(w http.ResponseWriter, r *http.Request) {
	var all []jobs.Status
	err := p.ask(r.Context(), func() (err error) { all, err = p.source.Snapshot(r.Context()); return err })
	if err != nil {
		p.unavailable(w, r, err)
		return
	}
	p.render(w, r, http.StatusOK, "overview", p.overview(all, filterOf(r.URL.Query())))
}

// overview makes what is shown of all keys: as many rows as a page has.
func (p *Page) overview(all []jobs.Status, f filter) *overview {
	now := p.now().UTC()
	v := &overview{Total: len(all), Filter: f}
	var total, found [groups]int
	entries := make([]entry, 0, len(all))
	text := strings.ToLower(f.Text)
	for i := range all {
		e := newEntry(&all[i], now)
		total[e.group]++
		if (f.group == groups || f.group == e.group) && matches(e.job, text) {
			found[e.group]++
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, entry.compare)
	v.Found = len(entries)
	v.Filter.page = v.Pages.fill(p, f, v.Found)
	first := (v.Filter.page - 1) * perPage
	shown := entries[first:min(first+perPage, len(entries))]
	v.From, v.To = first+1, first+len(shown)
	for _, e := range shown {
		if n := len(v.Sections); n == 0 || v.Sections[n-1].Group != e.group {
			v.Sections = append(v.Sections, section{Group: e.group, N: found[e.group]})
		}
		s := &v.Sections[len(v.Sections)-1]
		s.Rows = append(s.Rows, p.row(e, now, toMinute))
	}
	lead := leading(total)
	v.Headline = headline(len(all), total, lead)
	if len(all) > 0 {
		v.Lead = lead.Slug()
	}
	for g := range groups {
		v.Counts = append(v.Counts, count{Group: g, N: total[g], Href: p.home(filter{group: g, paused: f.paused}.query()), Current: f.group == g})
	}
	v.Clear = p.home(filter{group: groups, paused: f.paused}.query())
	toggled := v.Filter
	toggled.paused = !f.paused
	v.frame = p.frame(v.Headline, now, total[groupRunning] > 0, f.paused, p.home(toggled.query()))
	return v
}

// fill makes the links, and returns which page is shown.
func (v *pager) fill(p *Page, f filter, found int) int {
	v.Count = max(1, (found+perPage-1)/perPage)
	v.Number = min(f.page, v.Count)
	link := func(n int) string {
		f.page = n
		return p.home(f.query())
	}
	if v.Number > 1 {
		v.First, v.Before = link(1), link(v.Number-1)
	}
	if v.Number < v.Count {
		v.Next, v.Final = link(v.Number+1), link(v.Count)
	}
	return v.Number
}

// leading is the group that is the most important to know of.
func leading(n [groups]int) group {
	for _, g := range [...]group{groupPerson, groupFailed, groupRunning, groupDue} {
		if n[g] > 0 {
			return g
		}
	}
	return groupHealthy
}

// headline says the most important thing in one sentence.
func headline(all int, n [groups]int, lead group) string {
	one := n[lead] == 1
	keys := number(n[lead]) + " keys "
	switch {
	case all == 0:
		return "No keys yet"
	case lead == groupHealthy && one:
		return "The key is healthy"
	case lead == groupHealthy:
		return "All " + keys + "are healthy"
	case one:
		return "One key " + [...]string{"needs a person", "is being rotated", "failed or was refused", "is due"}[lead]
	}
	return keys + [...]string{"need a person", "are being rotated", "failed or were refused", "are due"}[lead]
}

// number groups digits by thousands.
func number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
