package browsertest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

// now is the time on every page, so that pictures can be compared.
var now = time.Date(2026, 11, 22, 11, 2, 41, 0, time.UTC)

// hostile is a name that would run a script, turn the text around and leave the
// page, if it could.
const hostile = "\"><img src=x onerror=alert(1)><script>alert(2)</script>\u202Egnp.exe\u202C'-`${alert(3)}/../..//a?b#c%2F\x00\xff\u200B{{.}}"

// fleet is a source and a history that say what they are told to.
type fleet struct {
	all    []jobs.Status
	events []store.Event
	runs   []store.Run
	away   atomic.Bool // the database is
}

func (f *fleet) Snapshot(context.Context) ([]jobs.Status, error) {
	if f.away.Load() {
		return nil, context.DeadlineExceeded
	}
	all := slices.Clone(f.all)
	for i := range all {
		if !all[i].UnderWay() {
			all[i].Rotation = nil // as a runner does
		}
	}
	return all, nil
}

func (f *fleet) Status(_ context.Context, job string) (jobs.Status, error) {
	for _, s := range f.all {
		if s.Job == job {
			return s, nil
		}
	}
	return jobs.Status{}, fmt.Errorf("%w: %q", jobs.ErrUnknown, job)
}

func (f *fleet) WorkerID() string { return "rotator-1" }

func (f *fleet) Events(_ context.Context, job string, limit int) (out []store.Event, _ error) {
	for _, e := range f.events {
		if e.Job == job && len(out) < limit {
			out = append(out, e)
		}
	}
	return out, nil
}

func (f *fleet) Runs(_ context.Context, job string, limit int) (out []store.Run, _ error) {
	for _, r := range f.runs {
		if r.Job == job && len(out) < limit {
			out = append(out, r)
		}
	}
	return out, nil
}

func ago(d time.Duration) time.Time { return now.Add(-d) }
func in(d time.Duration) time.Time  { return now.Add(d) }

const day = 24 * time.Hour

// every is a fleet with a key in each state that there is.
func every() *fleet {
	f := new(fleet)
	confirmed := func(name string, d time.Duration) rotation.SinkStatus {
		return rotation.SinkStatus{Name: name, State: rotation.SinkConfirmed, Confirmed: ago(d)}
	}
	pending := func(name string) rotation.SinkStatus {
		return rotation.SinkStatus{Name: name, State: rotation.SinkPending}
	}
	under := func(name, strategy, provider, key string, rot rotation.Status) jobs.Status {
		rot.Job, rot.Strategy, rot.Operation = name, strategy, "5d0c1f7e2a94b836"
		return jobs.Status{
			Job: name, Strategy: strategy, Provider: provider, Key: key, State: string(rot.State), LastRun: ago(12 * time.Second),
			Due: in(10 * time.Minute), Generation: 7, Issued: ago(31 * day), Finished: ago(31 * day), Rotation: &rot,
		}
	}
	stuck := under("payments-live", "ricloud-overlap", "ricloud", "key 41", rotation.Status{
		State: rotation.StateStuck, Resume: rotation.StateDistributing, Issued: ago(4*time.Hour + 48*time.Minute), Deadline: in(72 * time.Minute),
		Problem: "rotation: sink vault secret/payments: keywright: HTTP 403: permission denied",
		Steps: []string{
			"the old token and the new one are both accepted meanwhile",
			"mend vault secret/payments",
			"where somebody else wrote, put the old or the new token back",
			"mend the cause before the old token lapses at 2026-11-22T12:14:41Z",
			"then run Resume",
		},
		Sinks: []rotation.SinkStatus{
			confirmed("file /etc/payments/ricloud.token", 4*time.Hour+47*time.Minute), confirmed("dotenv /srv/payments/.env RICLOUD_TOKEN", 4*time.Hour+46*time.Minute),
			{Name: "vault secret/payments", State: rotation.SinkFailed, Problem: "keywright: HTTP 403: permission denied"}, pending("kubernetes payments/ricloud"),
		},
	})
	stuck.Due, stuck.Owner = in(19*time.Hour), "rotator-1"
	f.all = append(f.all, stuck,
		under("ledger", "ricloud-overlap", "ricloud", "key 12", rotation.Status{
			State: rotation.StateDistributing, Issued: ago(22 * time.Minute), Deadline: in(5*time.Hour + 38*time.Minute),
			Sinks: []rotation.SinkStatus{confirmed("file /etc/ledger.token", 20*time.Minute), {Name: "github acme/ledger RICLOUD_TOKEN", State: rotation.SinkWriting}, pending("vault secret/ledger")},
		}),
		under("warehouse", "ricloud-paired", "ricloud", "keys 7 and 8", rotation.Status{
			State: rotation.StateConverging, Issued: ago(9 * time.Minute),
			Sinks: []rotation.SinkStatus{confirmed("file /etc/warehouse.token", 8*time.Minute), confirmed("dotenv /srv/warehouse/.env TOKEN", 8*time.Minute)},
		}),
		under("search-index", "ricloud-overlap", "ricloud", "key 19", rotation.Status{State: rotation.StateResolving, Issued: ago(30 * day), Deadline: in(5*time.Hour + 57*time.Minute), Sinks: []rotation.SinkStatus{pending("file /etc/search.token")}}),
		jobs.Status{
			Job: "image-models", Strategy: "acedata-swap", Provider: "acedata", Key: "credential 5f0f3c2e-8f55-4c1b-9d7e-1a2b3c4d5e6f or its successor", State: jobs.StateFailed, Attempts: 3,
			Problem: "rotation: image-models: no token was issued: keywright: credential.create: transport: dial tcp: connection refused", LastRun: ago(4 * time.Minute), Due: in(11 * time.Minute), Generation: 2, Issued: ago(88 * day), Finished: ago(88 * day), Expires: in(2 * day),
		},
		jobs.Status{
			Job: "legacy-export", Strategy: "acedata-in-place", Provider: "acedata", Key: "credential 0b5c…", Owner: "rotator-2", State: jobs.StateRefused, Attempts: 1,
			Problem: "rotation: legacy-export: refused (outage): the strategy interrupts service; set accept_outage", Blocked: "jobs: the job needs its owner: it is rotator-2's, and this is rotator-1",
			LastRun: ago(5 * time.Hour), Due: in(19 * time.Hour), Issued: ago(400 * day), Reason: "every 365d",
		},
		jobs.Status{Job: "newsletter", Strategy: "ricloud-paired", Provider: "ricloud", Key: "keys 3 and 4", State: "DONE", Overdue: true, Due: ago(90 * time.Second), Reason: "every 30d, 2h of jitter", LastRun: ago(30 * day), Generation: 12, Issued: ago(30 * day), Finished: ago(30 * day)},
		jobs.Status{Job: "old-partner", Strategy: "ricloud-paired", Provider: "ricloud", Key: "keys 1 and 2", State: "DONE", Due: in(3 * day), Reason: "cron 0 4 1 * *", LastRun: ago(59 * day), Generation: 4, Issued: ago(59 * day), Finished: ago(59 * day), Expires: ago(3 * day)},
		jobs.Status{Job: "fresh", Strategy: "acedata-swap", Provider: "acedata", Key: "credential 77c1…", Due: in(26 * day), Reason: "14d before it expires", Expires: in(40 * day)},
		jobs.Status{Job: "by-hand", Strategy: "ricloud-paired", Provider: "ricloud", Key: "keys 21 and 22", State: "DONE", LastRun: ago(200 * day), Generation: 1, Issued: ago(200 * day), Finished: ago(200 * day), Reason: "no schedule"},
		jobs.Status{Job: hostile, Strategy: "<b>bold</b>", Provider: "javascript:alert(4)", Key: hostile, Owner: "", State: "DONE", Due: in(9 * day), Reason: hostile, LastRun: ago(day), Problem: hostile, Generation: 1, Issued: ago(day), Finished: ago(day)},
		jobs.Status{Job: strings.Repeat("long-name-", 1000), Strategy: "ricloud-paired", Provider: "ricloud", Key: strings.Repeat("W", 10_000), State: "DONE", Due: in(10 * day), Reason: "every 30d", LastRun: ago(20 * day), Generation: 3, Issued: ago(20 * day), Finished: ago(20 * day)},
	)
	for i, name := range []string{"accounts", "billing", "crm", "data-lake", "email-gateway", "fraud", "geo"} {
		since := time.Duration(3+2*i) * day
		f.all = append(f.all, jobs.Status{
			Job: name, Strategy: "ricloud-paired", Provider: "ricloud", Key: fmt.Sprintf("keys %d and %d", 50+2*i, 51+2*i), State: "DONE", Due: in(30*day - since), Reason: "every 30d, 6h of jitter",
			LastRun: ago(since), Generation: 5 + i, Issued: ago(since + 4*time.Minute), Finished: ago(since),
			Rotation: &rotation.Status{Job: name, State: rotation.StateDone, Operation: "aa01bb02cc03dd04", Sinks: []rotation.SinkStatus{confirmed("file /etc/"+name+".token", since)}},
		})
	}
	f.history(stuck)
	f.events = append(f.events, store.Event{Job: hostile, Operation: hostile, At: ago(time.Hour), Kind: hostile, From: hostile, To: hostile, Sink: hostile, Text: hostile})
	f.runs = append(f.runs, store.Run{Job: hostile, Operation: hostile, Owner: hostile, Started: ago(time.Hour), Finished: ago(59 * time.Minute), State: hostile, Problem: hostile})
	return f
}

// history is that of a rotation which got stuck, and of the one before.
func (f *fleet) history(s jobs.Status) {
	var events []store.Event // the latest is last
	var operation string
	var at time.Time
	add := func(after time.Duration, kind string, e store.Event) {
		at = at.Add(after)
		e.Job, e.Operation, e.At, e.Kind = s.Job, operation, at, kind
		events = append(events, e)
	}
	state := func(after time.Duration, from, to rotation.State) {
		add(after, store.KindState, store.Event{From: string(from), To: string(to)})
	}
	operation, at = "c01d0bae93f2771a", ago(31*day)
	state(0, rotation.StatePlanned, rotation.StateIntent)
	state(time.Second, rotation.StateIntent, rotation.StateIssued)
	state(5*time.Second, rotation.StateRetiring, rotation.StateDone)
	operation, at = s.Rotation.Operation, ago(4*time.Hour+49*time.Minute)
	state(0, rotation.StateIdle, rotation.StatePlanned)
	state(time.Second, rotation.StatePlanned, rotation.StateIntent)
	state(800*time.Millisecond, rotation.StateIntent, rotation.StateIssued)
	add(0, store.KindWindow, store.Event{Text: "5h59m59s"})
	state(3*time.Second, rotation.StateIssued, rotation.StateVerified)
	state(0, rotation.StateVerified, rotation.StateDistributing)
	for _, sink := range s.Rotation.Sinks[:2] {
		add(time.Second, store.KindSink, store.Event{Sink: sink.Name, To: string(rotation.SinkWriting)})
		add(time.Second, store.KindSink, store.Event{Sink: sink.Name, To: string(rotation.SinkConfirmed)})
	}
	add(time.Second, store.KindFailed, store.Event{To: string(rotation.StateDistributing), Text: "sink vault secret/payments: keywright: HTTP 403: permission denied"})
	add(0, store.KindWaiting, store.Event{To: string(rotation.StateDistributing), Text: "1m0s for vault secret/payments"})
	add(10*time.Minute, store.KindSink, store.Event{Sink: "vault secret/payments", To: string(rotation.SinkFailed)})
	state(0, rotation.StateDistributing, rotation.StateStuck)
	slices.Reverse(events)
	f.events = append(f.events, events...)
	f.runs = append(f.runs,
		store.Run{ID: 3, Job: s.Job, Owner: "rotator-1", Started: ago(4*time.Hour + 38*time.Minute), Finished: ago(4*time.Hour + 38*time.Minute - 700*time.Millisecond), State: "STUCK", Problem: s.Rotation.Problem},
		store.Run{ID: 2, Job: s.Job, Owner: "rotator-1", Started: ago(4*time.Hour + 49*time.Minute), Finished: ago(4*time.Hour + 48*time.Minute), State: "DISTRIBUTING", ResumeAt: ago(4*time.Hour + 47*time.Minute)},
		store.Run{ID: 1, Job: s.Job, Owner: "rotator-1", Started: ago(31 * day), Finished: ago(31*day - 14*time.Second), State: "DONE"},
	)
}

// many is a fleet of so many healthy keys, but for some.
func many(n int) *fleet {
	f := new(fleet)
	some := every().all
	for i := range n {
		s := some[len(some)-1]
		switch i % 997 {
		case 1:
			s = some[0]
		case 2:
			s = some[1]
		case 3:
			s = some[4]
		case 4, 5, 6:
			s.Overdue, s.Due = true, ago(time.Duration(i)*time.Second)
		default:
			s.Due = in(time.Duration(i) * time.Minute)
		}
		s.Job = fmt.Sprintf("tenant-%05d", i)
		f.all = append(f.all, s)
	}
	return f
}
