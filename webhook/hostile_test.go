package webhook_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/webhook"
)

// The program is told to stop while the answer to a create is on its way: no
// config is left behind.
func TestCancelledCreateLeavesNothing(t *testing.T) {
	t.Parallel()
	cancelled := func(p *program) context.Context {
		ctx, cancel := context.WithCancel(t.Context())
		p.f.Inject(keywrighttest.Fault{Op: "webhook_config.create", When: keywrighttest.AfterApply, Do: keywrighttest.Answer, Edit: func(b []byte) []byte {
			cancel()
			return b[:len(b)/2] // what arrives is of no use
		}})
		return ctx
	}
	p := start(t)
	_, err := webhook.Register(cancelled(p), p.rc, p.url)
	require.Error(t, err)
	assert.Zero(t, p.configs(t))

	reg := p.register(t)
	require.NoError(t, reg.Activate(t.Context()))
	require.Error(t, reg.Replace(cancelled(p)))
	require.NoError(t, reg.Close(t.Context()))
	assert.Zero(t, p.configs(t))
}

// The answers to both creates are lost, the first before it took effect.
func TestCreateLostTwice(t *testing.T) {
	t.Parallel()
	p := start(t)
	for _, when := range []keywrighttest.Moment{keywrighttest.BeforeApply, keywrighttest.AfterApply} {
		p.f.Inject(keywrighttest.Fault{Op: "webhook_config.create", When: when, Do: keywrighttest.Drop})
	}
	reg, err := webhook.Register(t.Context(), p.rc, p.url)
	require.NoError(t, err)
	assert.Equal(t, 1, p.configs(t))
	require.NoError(t, reg.Close(t.Context()))
	assert.Zero(t, p.configs(t))
}

// An update took effect, its answer was lost, and the next one is refused:
// Close puts the former config back all the same.
func TestActivateInDoubt(t *testing.T) {
	t.Parallel()
	p := start(t)
	before := p.use(t, "https://hooks.example.com/x")
	reg := p.register(t)
	p.f.Inject(keywrighttest.Fault{Op: "key.update", When: keywrighttest.AfterApply, Do: keywrighttest.Drop})
	p.f.Inject(keywrighttest.Fault{Op: "key.update", Do: keywrighttest.Answer, Status: 403, Body: `{"error":"missing-scope"}`, Times: -1})
	require.Error(t, reg.Activate(t.Context()))
	p.f.ClearFaults()
	assert.Equal(t, reg.Config(), p.inEffect(t))
	require.NoError(t, reg.Close(t.Context()))
	assert.Equal(t, before, p.inEffect(t))
	assert.Equal(t, 1, p.configs(t))
}

// What others use by now is neither deleted by Close nor by Retire.
func TestOthersKeepTheirConfig(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.f.AddKeys(1)
	reg := p.register(t)
	require.NoError(t, reg.Activate(t.Context()))
	second, err := webhook.Register(t.Context(), p.rc, p.url, webhook.ForKey(2))
	require.NoError(t, err)
	require.Equal(t, reg.Config(), second.Config())
	require.NoError(t, second.Activate(t.Context()))
	require.NoError(t, reg.Replace(t.Context()))
	require.ErrorIs(t, reg.Retire(t.Context()), webhook.ErrInUse)
	require.NoError(t, reg.Close(t.Context()))
	key, err := p.rc.Key.Retrieve(t.Context(), 2)
	require.NoError(t, err)
	require.NotNil(t, key.WebhookConfig)
	assert.Equal(t, second.Config(), *key.WebhookConfig)
	assert.Equal(t, 1, p.configs(t))
}

// The former config is gone when it is to be put back.
func TestFormerIsGone(t *testing.T) {
	t.Parallel()
	p := start(t)
	before := p.use(t, "https://hooks.example.com/x")
	reg := p.register(t)
	require.NoError(t, reg.Activate(t.Context()))
	require.NoError(t, p.rc.WebhookConfig.DeleteWithID(t.Context(), before))
	require.NoError(t, reg.Close(t.Context()))
	assert.Zero(t, p.inEffect(t))
	assert.Zero(t, p.configs(t))
}

// What somebody else puts into effect, before Activate or after, is put back,
// and is not replaced.
func TestSomebodyElsesConfig(t *testing.T) {
	t.Parallel()
	p := start(t)
	reg := p.register(t)
	theirs := p.use(t, "https://hooks.example.com/theirs")
	require.NoError(t, reg.Activate(t.Context()))
	require.NoError(t, reg.Close(t.Context()))
	assert.Equal(t, theirs, p.inEffect(t))

	reg = p.register(t)
	require.NoError(t, reg.Activate(t.Context()))
	theirs = p.use(t, "https://hooks.example.com/theirs-too")
	require.ErrorIs(t, reg.Replace(t.Context()), webhook.ErrInUse)
	require.NoError(t, reg.Close(t.Context()))
	assert.Equal(t, theirs, p.inEffect(t))
}

// A replacement that could neither be carried out nor taken back keeps both
// secrets, until the next one finds out.
func TestReplaceInDoubtIsSettled(t *testing.T) {
	t.Parallel()
	p := start(t)
	reg := p.register(t)
	require.NoError(t, reg.Activate(t.Context()))
	p.f.Inject(keywrighttest.Fault{Op: "key.update", When: keywrighttest.AfterApply, Do: keywrighttest.Drop})
	p.f.Inject(keywrighttest.Fault{Op: "key.update", Do: keywrighttest.Drop, Times: -1})
	require.Error(t, reg.Replace(t.Context()))
	p.f.ClearFaults()
	assert.NotEqual(t, reg.Config(), p.inEffect(t))
	require.NoError(t, reg.Replace(t.Context()))
	assert.Equal(t, reg.Config(), p.inEffect(t))
	assert.Equal(t, "delivered", settled(t, p.f, p.f.Emit("session", "expired", nil)))
	require.NoError(t, reg.Retire(t.Context()))
	require.NoError(t, reg.Close(t.Context()))
	assert.Zero(t, p.configs(t))
}

// An event without a date does not hide those behind it.
func TestReconcileWithoutDate(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.f.Emit("session", "expired", nil)
	p.f.Emit("session", "expired", nil)
	p.f.Inject(keywrighttest.Fault{Op: "event.list", When: keywrighttest.AfterApply, Do: keywrighttest.Answer, Times: -1, Edit: func(b []byte) []byte {
		return bytes.Replace(b, []byte(`"date_created":`), []byte(`"date_created":null,"date_made":`), 1)
	}})
	n, err := webhook.Reconcile(t.Context(), p.rc, time.Now().Add(-time.Hour), webhook.NewMemoryStore(0), p.accept)
	require.NoError(t, err)
	assert.Equal(t, 2, n)
}

// What could not be read back from the inbox is not put there.
func TestUnwritableEvents(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.f.Emit("session", "expired", nil)
	p.f.Inject(keywrighttest.Fault{Op: "event.list", When: keywrighttest.AfterApply, Do: keywrighttest.Answer, Times: -1, Edit: func(b []byte) []byte {
		return bytes.ReplaceAll(b, []byte(`"date_created":"`), []byte(`"date_created":"9999-12-31T23:59:59-05:00","x":"`))
	}})
	store := webhook.NewFileStore(t.TempDir() + "/events")
	_, err := webhook.Reconcile(t.Context(), p.rc, time.Time{}, store, store.Accept)
	require.ErrorIs(t, err, webhook.ErrInvalidEvent)
	n, err := store.Pending(t.Context())
	require.NoError(t, err)
	assert.Zero(t, n)

	b := []byte("{\"id\":\"x\xff\",\"type\":\"a\",\"action\":\"b\"}")
	_, err = verifier(t, secretA).Verify(header(sign(secretA, "1570788000", b)), b)
	require.ErrorIs(t, err, webhook.ErrInvalidEvent)
}

// stoppingFS ends a context as soon as the lock of an event is had.
type stoppingFS struct {
	durable.OS
	stop func()
}

func (s stoppingFS) Lock(ctx context.Context, name string, wait bool) (func() error, error) {
	unlock, err := s.OS.Lock(ctx, name, wait)
	if !strings.HasSuffix(name, "process") {
		s.stop()
	}
	return unlock, err
}

// Process is stopped in the moment in which it gets the lock of an event: it
// gives it up.
func TestProcessGivesLocksUp(t *testing.T) {
	t.Parallel()
	s := webhook.NewFileStore(t.TempDir() + "/events")
	require.NoError(t, s.Accept(t.Context(), &webhook.Event{Event: keywright.Event{ID: "x", Type: "a", Action: "b"}}))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	err := s.Process(durable.NewContext(ctx, stoppingFS{stop: stop}), func(context.Context, *webhook.Event) error { return nil })
	require.ErrorIs(t, err, context.Canceled)
	soon, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	require.ErrorIs(t, s.Once(soon, "x", webhook.Digest{}, func() error { return nil }), webhook.ErrDuplicate)
}
