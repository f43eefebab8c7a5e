package rotation_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/rotationtest"
)

// quick are the options of a client in front of a fake on loopback.
func quick(url string, more ...keywright.Option) []keywright.Option {
	return append([]keywright.Option{
		keywright.WithoutEnvironment(), keywright.WithBaseURL(url), keywright.WithTimeout(5 * time.Second),
		keywright.WithSettleTime(50 * time.Millisecond), keywright.WithRetry(keywright.RetryPolicy{MaxAttempts: 1}),
	}, more...)
}

// lose and refuse are faults of an operation, as rotationtest asks for them.
func lose(inject func(...keywrighttest.Fault), op string) func(bool) {
	return func(applied bool) {
		when := keywrighttest.BeforeApply
		if applied {
			when = keywrighttest.AfterApply
		}
		inject(keywrighttest.Fault{Op: op, When: when, Do: keywrighttest.Drop})
	}
}

func refuse(inject func(...keywrighttest.Fault), op string) func() {
	return func() {
		inject(keywrighttest.Fault{Op: op, Do: keywrighttest.Answer, Status: 403, Body: `{"error":"missing-scope","message":"no"}`})
	}
}

func TestRicloudStrategies(t *testing.T) {
	t.Parallel()
	provider := func(t *testing.T, strategy func(*keywright.Ricloud) rotation.Strategy, keys ...int64) rotationtest.Provider {
		fake := keywrighttest.StartRicloud(t)
		fake.AddKeys(2)
		rc, err := keywright.NewRicloud(quick(fake.URL(), keywright.WithToken(fake.TokenOf(3)))...)
		require.NoError(t, err)
		t.Cleanup(rc.CloseIdleConnections)
		return rotationtest.Provider{
			Strategy: strategy(rc), Token: fake.Token(), Settle: 100 * time.Millisecond,
			Accepted: func() (all []string) {
				for _, id := range keys {
					all = append(all, fake.AcceptedTokens(id)...)
				}
				return all
			},
			Lose: lose(fake.Inject, "key.rotate"), Refuse: refuse(fake.Inject, "key.rotate"),
			Issues: func() int {
				n := fake.Applied("key.rotate")
				for _, r := range fake.Requests() {
					if r.Op == "key.rotate" && string(r.Body) != "{}" {
						n-- // a burn
					}
				}
				return n
			},
		}
	}
	t.Run("paired", func(t *testing.T) {
		t.Parallel()
		rotationtest.Run(t, func(t *testing.T) rotationtest.Provider {
			return provider(t, func(rc *keywright.Ricloud) rotation.Strategy {
				return rotation.RicloudPaired{Client: rc, Keys: [2]keywright.KeyID{1, 2}}
			}, 1, 2)
		})
	})
	t.Run("overlap", func(t *testing.T) {
		t.Parallel()
		rotationtest.Run(t, func(t *testing.T) rotationtest.Provider {
			return provider(t, func(rc *keywright.Ricloud) rotation.Strategy {
				return rotation.RicloudOverlap{Client: rc, Key: 1}
			}, 1)
		})
	})
}

func TestAceDataStrategies(t *testing.T) {
	t.Parallel()
	provider := func(t *testing.T, op string, strategy func(*keywright.AceData, keywright.CredentialID) rotation.Strategy) rotationtest.Provider {
		fake := keywrighttest.StartAceData(t)
		ac, err := keywright.NewAceData(quick(fake.URL(), keywright.WithToken(fake.Token()))...)
		require.NoError(t, err)
		t.Cleanup(ac.CloseIdleConnections)
		c, err := ac.Credential.Create(t.Context(), keywright.CredentialCreateParams{ApplicationID: keywright.ApplicationID(fake.ApplicationID())})
		require.NoError(t, err)
		fake.Forget()
		ids := func() (ids []string) {
			for c, err := range ac.Credential.All(t.Context(), keywright.CredentialListParams{ApplicationIDs: []keywright.ApplicationID{c.ApplicationID}}) {
				require.NoError(t, err)
				ids = append(ids, string(c.ID))
			}
			return ids
		}
		return rotationtest.Provider{
			Strategy: strategy(ac, c.ID), Token: c.Token.Reveal(), Settle: 100 * time.Millisecond,
			Accepted: func() (all []string) {
				for _, id := range ids() {
					all = append(all, fake.AcceptedTokens(id)...)
				}
				return all
			},
			Lose: lose(fake.Inject, op), Refuse: refuse(fake.Inject, op),
			Issues: func() int { return fake.Applied(op) },
		}
	}
	t.Run("swap", func(t *testing.T) {
		t.Parallel()
		rotationtest.Run(t, func(t *testing.T) rotationtest.Provider {
			return provider(t, "credential.create", func(ac *keywright.AceData, id keywright.CredentialID) rotation.Strategy {
				return rotation.AceDataSwap{Client: ac, Credential: id, IdleFor: -1}
			})
		})
	})
	t.Run("in place", func(t *testing.T) {
		t.Parallel()
		rotationtest.Run(t, func(t *testing.T) rotationtest.Provider {
			return provider(t, "credential.rotate", func(ac *keywright.AceData, id keywright.CredentialID) rotation.Strategy {
				return rotation.AceDataInPlace{Client: ac, Credential: id, AcceptOutage: true}
			})
		})
	})
}
