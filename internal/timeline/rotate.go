package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

// Lags of the two sinks: short, so that there is something to see of the wait.
const (
	fileLag   = 20 * time.Millisecond
	dotenvLag = 40 * time.Millisecond
)

// stage is a fake provider with a key, and how that is rotated.
type stage struct {
	strategy rotation.Strategy
	token    string                              // in use before
	accepted func() []string                     // what the provider takes right now, for the key and its successors
	inject   func(faults ...keywrighttest.Fault) // into the fake
	close    func()
}

// scene is a rotation to perform.
type scene struct {
	title string
	note  string // what to look at
	faint bool   // an interruption of service is part of the strategy
	fault *keywrighttest.Fault
	setUp func(ctx context.Context, middleware keywright.Option) (*stage, error)
}

var scenes = []scene{
	{title: "RicloudPaired", note: "both tokens work until the burn", setUp: paired},
	{
		title: "RicloudPaired, and the answer to the rotate call is lost", note: "it is read back; nothing is sent again",
		fault: &keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.AfterApply, Do: keywrighttest.Drop}, setUp: paired,
	},
	{title: "RicloudOverlap", note: "the old token lapses by itself, six hours after the call", setUp: overlap},
	{title: "AceDataSwap", note: "a second credential, and then the first is deleted", setUp: swap},
	{title: "AceDataInPlace", note: "the outage: from the call until the last reader has the new token", faint: true, setUp: inPlace},
}

func ricloud(middleware keywright.Option) (*keywrighttest.Ricloud, *keywright.Ricloud, error) {
	fake, err := keywrighttest.NewRicloud()
	if err != nil {
		return nil, nil, err
	}
	fake.AddKeys(1)
	rc, err := keywright.NewRicloud(keywright.WithoutEnvironment(), keywright.WithBaseURL(fake.URL()), keywright.WithToken(fake.Token()), middleware)
	if err != nil {
		fake.Close()
		return nil, nil, err
	}
	return fake, rc, nil
}

func paired(_ context.Context, middleware keywright.Option) (*stage, error) {
	fake, rc, err := ricloud(middleware)
	if err != nil {
		return nil, err
	}
	return &stage{
		strategy: rotation.RicloudPaired{Client: rc, Keys: [2]keywright.KeyID{1, 2}}, token: fake.Token(), inject: fake.Inject,
		accepted: func() []string { return append(fake.AcceptedTokens(1), fake.AcceptedTokens(2)...) },
		close:    func() { rc.CloseIdleConnections(); fake.Close() },
	}, nil
}

func overlap(_ context.Context, middleware keywright.Option) (*stage, error) {
	fake, rc, err := ricloud(middleware)
	if err != nil {
		return nil, err
	}
	return &stage{
		strategy: rotation.RicloudOverlap{Client: rc, Key: 1}, token: fake.Token(), inject: fake.Inject,
		accepted: func() []string { return fake.AcceptedTokens(1) },
		close:    func() { rc.CloseIdleConnections(); fake.Close() },
	}, nil
}

func swap(ctx context.Context, middleware keywright.Option) (*stage, error) {
	return aceData(ctx, middleware, (*keywrighttest.AceData).ApplicationID, func(ac *keywright.AceData, id keywright.CredentialID) rotation.Strategy {
		return rotation.AceDataSwap{Client: ac, Credential: id, IdleFor: -1}
	})
}

func inPlace(ctx context.Context, middleware keywright.Option) (*stage, error) {
	return aceData(ctx, middleware, (*keywrighttest.AceData).ProxyApplicationID, func(ac *keywright.AceData, id keywright.CredentialID) rotation.Strategy {
		return rotation.AceDataInPlace{Client: ac, Credential: id, AcceptOutage: true}
	})
}

// aceData makes a credential with a spend limit under an application.
func aceData(ctx context.Context, middleware keywright.Option, application func(*keywrighttest.AceData) string, strategy func(*keywright.AceData, keywright.CredentialID) rotation.Strategy) (*stage, error) {
	fake, err := keywrighttest.NewAceData()
	if err != nil {
		return nil, err
	}
	ac, err := keywright.NewAceData(keywright.WithoutEnvironment(), keywright.WithBaseURL(fake.URL()), keywright.WithToken(fake.Token()), middleware)
	if err != nil {
		fake.Close()
		return nil, err
	}
	under := keywright.ApplicationID(application(fake))
	first, err := ac.Credential.Create(ctx, keywright.CredentialCreateParams{ApplicationID: under, LimitedAmount: keywright.Set(100.0)})
	if err != nil {
		fake.Close()
		return nil, err
	}
	return &stage{
		strategy: strategy(ac, first.ID), token: first.Token.Reveal() + first.Password.Reveal(), inject: fake.Inject,
		accepted: func() []string { return acceptedUnder(fake, under) },
		close:    func() { ac.CloseIdleConnections(); fake.Close() },
	}, nil
}

// acceptedUnder returns what the data plane takes for any credential of an
// application. The list is asked for past the network and past the clients.
func acceptedUnder(fake *keywrighttest.AceData, under keywright.ApplicationID) (all []string) {
	ask := httptest.NewRequest(http.MethodGet, "/api/v1/credentials/?limit=100&application_id="+string(under), nil)
	ask.Header.Set("Authorization", "Bearer "+fake.Token())
	answer := httptest.NewRecorder()
	fake.ServeHTTP(answer, ask)
	var list struct{ Items []struct{ ID string } }
	if err := json.Unmarshal(answer.Body.Bytes(), &list); err != nil {
		panic("timeline: the fake's list: " + err.Error())
	}
	for _, c := range list.Items {
		all = append(all, fake.AcceptedTokens(c.ID)...)
	}
	return all
}

// moment is a look at the world.
type moment struct {
	at       time.Duration // since Rotate was called
	accepted []string
	inSinks  []string
}

// change is a job in a new state.
type change struct {
	at time.Duration
	to rotation.State
}

// call is a provider call that changes something.
type call struct {
	to   time.Duration // when it was over
	name string
	lost bool // no answer came back
}

// Names of calls.
const (
	callRotate = "rotate"
	callBurn   = "burn"
	callCreate = "create"
	callUpdate = "update"
	callDelete = "delete"
)

// write is a delivery to a sink, from the first record of it to the last.
type write struct {
	from, to time.Duration
	sink     string
}

// rotated is a rotation that was performed.
type rotated struct {
	scene
	total    time.Duration
	changes  []change
	calls    []call
	reads    int // calls that change nothing
	writes   []write
	moments  []moment
	old, new string
	traits   rotation.Traits
	problem  error
}

// String returns one line.
func (r *rotated) String() string {
	states := make([]string, len(r.changes))
	for i, c := range r.changes {
		states[i] = string(c.to)
	}
	return fmt.Sprintf("%s: %s (%s, %s)", r.title, strings.Join(states, " "), r.total.Round(time.Millisecond), r.counted())
}

func (r *rotated) counted() string {
	if len(r.calls) == 1 {
		return fmt.Sprintf("%d reads, 1 call that changes something", r.reads)
	}
	return fmt.Sprintf("%d reads, %d calls that change something", r.reads, len(r.calls))
}

// recorder watches a rotation: the engine's events, and what goes over the
// wire. Both happen on the goroutine of the run.
type recorder struct {
	*rotated
	start time.Time
	stage *stage
	sinks []string // paths
}

func (rec *recorder) now() time.Duration { return time.Since(rec.start) }

// look notes what the provider accepts and what the sinks hold, and compares.
func (rec *recorder) look() {
	m := moment{at: rec.now(), accepted: rec.stage.accepted()}
	for _, path := range rec.sinks {
		b, err := os.ReadFile(path)
		token := strings.TrimSpace(strings.TrimPrefix(string(b), "TOKEN="))
		m.inSinks = append(m.inSinks, token)
		if rec.problem == nil {
			rec.problem = err
		}
		if rec.problem == nil && !rec.faint && !slices.Contains(m.accepted, token) {
			rec.problem = fmt.Errorf("after %s the provider refuses what %s holds", m.at, filepath.Base(path))
		}
	}
	rec.moments = append(rec.moments, m)
}

// observe is the engine's observer.
func (rec *recorder) observe(e rotation.Event) {
	switch e := e.(type) {
	case rotation.StateChanged:
		if !drawn(e.From, e.To) && rec.problem == nil {
			rec.problem = fmt.Errorf("the change from %s to %s is not in the table of states", e.From, e.To)
		}
		rec.changes = append(rec.changes, change{rec.now(), e.To})
	case rotation.SinkChanged:
		switch e.State {
		case rotation.SinkWriting:
			rec.writes = append(rec.writes, write{rec.now(), rec.now(), e.Sink})
		case rotation.SinkConfirmed:
			rec.writes[len(rec.writes)-1].to = rec.now()
		}
	}
	rec.look()
}

// middleware counts calls, and looks at the world around those that change
// something.
func (rec *recorder) middleware(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		switch {
		case rec.start.IsZero(): // the stage is being set
			return next.RoundTrip(r)
		case r.Method == http.MethodGet:
			rec.reads++
			return next.RoundTrip(r)
		}
		rec.look()
		var body []byte
		var err error
		if r.Body != nil {
			if body, err = io.ReadAll(r.Body); err != nil {
				return nil, err
			}
			_ = r.Body.Close()
			r = r.Clone(r.Context())
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		resp, err := next.RoundTrip(r)
		c := call{rec.now(), nameOf(r.Method, r.URL.Path, string(body)), err != nil}
		rec.calls = append(rec.calls, c)
		rec.look()
		return resp, err
	})
}

// nameOf says in a word what a call does.
func nameOf(method, path, body string) string {
	switch {
	case method == http.MethodDelete:
		return callDelete
	case method == http.MethodPatch:
		return callUpdate
	case !strings.HasSuffix(strings.TrimSuffix(path, "/"), "/rotate"):
		return callCreate
	case strings.Contains(body, `"force":true`):
		return callBurn
	}
	return callRotate
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// perform sets the stage, rotates, and checks what came of it.
func (s scene) perform(ctx context.Context) (_ *rotated, err error) {
	dir, err := os.MkdirTemp("", "keywright-timeline-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	rec := &recorder{rotated: &rotated{scene: s}}
	if rec.stage, err = s.setUp(ctx, keywright.WithMiddleware(rec.middleware)); err != nil {
		return nil, err
	}
	defer rec.stage.close()
	if s.fault != nil {
		rec.stage.inject(*s.fault)
	}
	rec.old, rec.traits = rec.stage.token, rec.stage.strategy.Traits()
	rec.sinks = []string{filepath.Join(dir, "token"), filepath.Join(dir, ".env")}
	for i, content := range []string{rec.old + "\n", "TOKEN=" + rec.old + "\n"} {
		if err := os.WriteFile(rec.sinks[i], []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	engine, err := rotation.Open(filepath.Join(dir, "journal"), rotation.WithObserver(rec.observe))
	if err != nil {
		return nil, err
	}
	rec.start = time.Now()
	rec.look()
	result, err := engine.Rotate(ctx, rotation.Job{
		Name: "app", Strategy: rec.stage.strategy, Policy: rotation.Policy{SettleTime: 100 * time.Millisecond},
		Sinks: []sink.Sink{sink.File(rec.sinks[0], sink.WithLag(fileLag)), sink.Dotenv(rec.sinks[1], "TOKEN", sink.WithLag(dotenvLag))},
	})
	rec.total = rec.now()
	if err != nil {
		return nil, err
	}
	rec.look()
	return rec.rotated, rec.over(result)
}

// over checks a rotation that has ended.
func (rec *recorder) over(result *rotation.Result) error {
	if rec.problem != nil {
		return rec.problem
	}
	last := rec.moments[len(rec.moments)-1]
	rec.new = last.inSinks[0]
	issued := 0
	for _, c := range rec.calls {
		if c.name == callRotate || c.name == callCreate {
			issued++
		}
	}
	switch {
	case result.State != rotation.StateDone:
		return fmt.Errorf("it ended in %s", result.State)
	case rec.new == rec.old || last.inSinks[1] != rec.new || !slices.Contains(last.accepted, rec.new):
		return errors.New("the sinks do not hold a new token that the provider accepts")
	case slices.Contains(last.accepted, rec.old) != (rec.traits.Overlap > 0):
		return errors.New("the old token does not live as the strategy says")
	case issued != 1:
		return fmt.Errorf("a token was asked for %d times", issued)
	}
	return nil
}
