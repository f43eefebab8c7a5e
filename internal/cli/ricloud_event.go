package cli

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
)

var eventColumns = []string{"id", "type", "action", "state", "retries", "date_created", "date_delivered"}

func (a *app) eventGroup() *cobra.Command {
	return group("event", "Look at the event log", a.eventList(), a.eventGet(), a.eventListen())
}

func (a *app) eventList() *cobra.Command {
	var (
		p keywright.EventListParams
		l listFlags
	)
	c := &cobra.Command{
		Use: "list", Short: "List events, the newest first",
		Example: "keywright ricloud event list --state failed --limit 20",
	}
	eventFilters(c, &p)
	choiceVar(c.Flags(), &p.State, "state", "", "only events whose delivery is in `STATE`: pending, delivered or failed",
		keywright.EventPending, keywright.EventDelivered, keywright.EventFailed)
	textVar(c.Flags(), &p.DateCreated, "date-created", "only events from `TEXT`, passed on as it is: how ricloud wants it written is not documented")
	textVar(c.Flags(), &p.AfterID, "after", "begin behind the event with this `ID`")
	textVar(c.Flags(), &p.BeforeID, "before", "stop before the event with this `ID`")
	l.define(c, "1000")
	c.RunE = onRicloud(a, func(_ *cobra.Command, rc *keywright.Ricloud) error {
		p.Limit = l.pageSize
		return runList(a, &l, eventColumns, rc.Event.All(a.ctx, p))
	})
	return c
}

func eventFilters(c *cobra.Command, p *keywright.EventListParams) {
	textVar(c.Flags(), &p.Type, "type", "only events about resources of `TYPE`, such as task")
	textVar(c.Flags(), &p.Action, "action", "only events with `ACTION`, such as succeeded")
}

func (a *app) eventGet() *cobra.Command {
	return &cobra.Command{
		Use: "get ID", Short: "Show an event", Args: arguments("ID"),
		Long:    `Show an event. Its data may hold the secret of a webhook and is shown with --reveal only.`,
		Example: "keywright ricloud event get 5ab4e7ae-7a9f-4d6c-a1c6-0f8b6d3f1b6e --reveal",
		RunE: func(_ *cobra.Command, args []string) error {
			rc, err := a.ricloud()
			if err != nil {
				return err
			}
			return a.print(rc.Event.Retrieve(a.ctx, keywright.EventID(args[0])))
		},
	}
}

func (a *app) eventListen() *cobra.Command {
	var (
		since time.Duration
		n     int
		l     = listener{a: a, interval: 2 * time.Second}
	)
	c := &cobra.Command{
		Use: "listen", Short: "Print events as they come",
		Long: `Print events as they come, the newest last, each once, until interrupted. The
event log is read again and again: nothing has to be reachable from ricloud, and
no webhook config is needed.

With --output json each event is one object on a line of its own; with --output
yaml each is a document.

An error that may pass, such as a broken connection, is noted on standard error,
and it goes on.`,
		Example: "keywright ricloud event listen --since 10m --type task\n" +
			"keywright ricloud event listen --output json --reveal | jq .data",
	}
	eventFilters(c, &l.params)
	durationVar(c.Flags(), &l.interval, "interval", "read the log every `DURATION`")
	durationVar(c.Flags(), &since, "since", "begin with the events of the last `DURATION`, such as 10m; by default only new ones are printed")
	c.Flags().IntVar(&n, "count", 0, "stop after `N` events; 0: do not stop")
	c.RunE = func(*cobra.Command, []string) error {
		switch {
		case n < 0:
			return usage("--count: must not be negative")
		case l.interval == 0:
			return usage("--interval: must be greater than 0")
		}
		rc, err := a.ricloud()
		if err != nil {
			return err
		}
		l.rc = rc
		return l.listen(since, n)
	}
	return c
}

// overlap is how far back a listener looks for events that became visible late.
const overlap = time.Minute

// listener follows the event log.
type listener struct {
	a        *app
	rc       *keywright.Ricloud
	params   keywright.EventListParams
	interval time.Duration

	began   bool
	from    time.Time                       // events before this are of no interest
	seen    map[keywright.EventID]time.Time // those since from
	printed int
}

// errStopped is how listening ends.
var errStopped = &coded{errors.New("no longer listening"), exitInterrupted}

// listen prints events until there were n, or it is interrupted.
func (l *listener) listen(since time.Duration, n int) error {
	a, trouble := l.a, ""
	for {
		events, err := l.next(since)
		wait := l.interval
		switch {
		case a.ctx.Err() != nil:
			return errStopped
		case err == nil:
			if trouble != "" {
				a.note("the event log can be read again")
				trouble = ""
			}
			for _, e := range events {
				if err := l.print(e); err != nil {
					return err
				}
				if l.printed == n {
					return nil
				}
			}
		case !passing(err):
			return err
		default:
			var api *keywright.APIError
			if errors.As(err, &api) {
				wait = max(wait, api.RetryAfter)
			}
			if text := err.Error(); text != trouble {
				a.note("%s; trying again", text)
				trouble = text
			}
		}
		select {
		case <-a.ctx.Done():
			return errStopped
		case <-time.After(wait):
		}
	}
}

// passing reports whether reading may succeed later.
func passing(err error) bool {
	var broken *keywright.TransportError
	return errors.Is(err, keywright.ErrServer) || errors.Is(err, keywright.ErrRateLimited) || errors.As(err, &broken)
}

// next returns the events that were not seen yet, the oldest first. The log has
// the newest first; whatever it shows at the first look is seen, unless it is
// not older than since.
func (l *listener) next(since time.Duration) ([]*keywright.Event, error) {
	var (
		fresh  []*keywright.Event
		meta   keywright.Meta
		newest time.Time
		from   = l.from
	)
	for e, err := range l.rc.Event.All(l.a.ctx, l.params, keywright.WithMeta(&meta)) {
		if err != nil {
			return nil, err
		}
		if newest.IsZero() {
			newest = e.DateCreated
			switch {
			case l.began:
			case since > 0:
				from = providerTime(&meta).Add(-since)
			default:
				from = newest.Add(-overlap)
			}
		}
		if !e.DateCreated.IsZero() && e.DateCreated.Before(from) {
			break
		}
		if _, seen := l.seen[e.ID]; !seen {
			fresh = append(fresh, e)
		}
	}
	first := !l.began
	if l.began = true; l.seen == nil {
		l.seen = make(map[keywright.EventID]time.Time)
	}
	for _, e := range fresh {
		l.seen[e.ID] = e.DateCreated
	}
	if l.from = from; newest.Add(-overlap).After(from) {
		l.from = newest.Add(-overlap)
	}
	for id, at := range l.seen {
		if !at.IsZero() && at.Before(l.from) {
			delete(l.seen, id)
		}
	}
	if first && since == 0 {
		return nil, nil
	}
	slices.Reverse(fresh)
	return fresh, nil
}

// providerTime is the provider's clock, which its answers show.
func providerTime(meta *keywright.Meta) time.Time {
	if t, err := http.ParseTime(meta.Header.Get("Date")); err == nil {
		return t
	}
	return time.Now()
}

// print prints an event, in a form that a reader can tell the end of.
func (l *listener) print(e *keywright.Event) error {
	l.printed++
	r := recorder{reveal: l.a.reveal}.record(e)
	switch l.a.format {
	case formatName:
		return l.a.printNames([]record{r})
	case formatJSON:
		b, err := encode(r)
		if err != nil {
			return err
		}
		return l.a.printText(printable(string(b)) + "\n")
	case formatYAML:
		text, err := toYAML(r)
		if err != nil {
			return err
		}
		return l.a.printText("---\n" + text)
	}
	line := func(id, created, slug string) string { return fmt.Sprintf("%-36s  %-20s  %s\n", id, created, slug) }
	text := line(cell(string(e.ID)), e.DateCreated.UTC().Format(time.RFC3339), cell(e.Slug()))
	if l.printed == 1 {
		head := line("ID", "DATE_CREATED", "EVENT")
		text = paint(colored(l.a.out), bold, head[:len(head)-1]) + "\n" + text
	}
	return l.a.printText(text)
}
