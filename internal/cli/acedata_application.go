package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
)

func (a *app) applicationGroup() *cobra.Command {
	return group("application", "Find and make the applications that credentials belong to",
		a.applicationList(), a.applicationGet(), a.applicationCreate())
}

func (a *app) applicationList() *cobra.Command {
	var (
		p keywright.ApplicationListParams
		l offsetFlags
	)
	c := &cobra.Command{
		Use: "list", Short: "List applications",
		Long:    `List applications: your own, unless --user-id says whose.`,
		Example: "keywright acedata application list --scope Global",
	}
	f := c.Flags()
	textsVar(f, &p.UserIDs, "user-id", "only applications of the user with this `ID`")
	choicesVar(f, &p.Affiliations, "affiliation", "only applications by `AFFILIATION`: owner, those that the user owns, or granted, those that the user was given credentials of; else owner",
		keywright.AffiliationOwner, keywright.AffiliationGranted)
	textsVar(f, &p.ServiceIDs, "service-id", "only applications for the service with this `ID`")
	choicesVar(f, &p.Scopes, "scope", "only applications with `SCOPE`: Individual or Global", keywright.ApplicationIndividual, keywright.ApplicationGlobal)
	choicesVar(f, &p.Types, "type", "only applications of `TYPE`: Usage or Period", keywright.ApplicationUsage, keywright.ApplicationPeriod)
	l.define(c)
	c.RunE = onAceData(a, func(c *cobra.Command, ad *keywright.AceData) error {
		p.Limit, p.Offset, p.Ordering = l.pageSize, l.offset, l.ordering
		columns := []string{"id", "service.alias", "type", "scope", "remaining_amount", "used_amount", "disabled", "expired_at"}
		return runList(a, &l.listFlags, columns, ad.Application.All(a.ctx, p, l.options(c)...))
	})
	return c
}

func (a *app) applicationGet() *cobra.Command {
	return &cobra.Command{
		Use: "get ID", Short: "Show an application", Args: arguments("ID"),
		Example: "keywright acedata application get 23f55ef3-9c7a-4a63-9f3f-7c7c2d1f4f52 --output json",
		RunE: acedataWithID(a, func(_ *cobra.Command, ad *keywright.AceData, id keywright.ApplicationID) error {
			return a.print(ad.Application.Retrieve(a.ctx, id))
		}),
	}
}

func (a *app) applicationCreate() *cobra.Command {
	var p keywright.ApplicationCreateParams
	c := &cobra.Command{
		Use: "create", Short: "Subscribe to a service, or to all of them",
		Long: `Make an application: subscribe to the service that --service-id names, or to all
of them with --scope Global. There is no way to delete one.

The call is sent once. If its answer is lost, the application is looked up.`,
		Example: "keywright acedata application create --service-id 6f4a3a6e-52c4-4e0b-9f0d-3b1c2d4e5f60\n" +
			"keywright acedata application create --scope Global",
	}
	f := c.Flags()
	textVar(f, &p.ServiceID, "service-id", "subscribe to the service with this `ID`")
	choiceVar(f, &p.Type, "type", "", "pay by `TYPE`: Usage or Period; else as the provider does", keywright.ApplicationUsage, keywright.ApplicationPeriod)
	choiceVar(f, &p.Scope, "scope", "", "cover `SCOPE`: Individual, which is one service, or Global", keywright.ApplicationIndividual, keywright.ApplicationGlobal)
	c.RunE = onAceData(a, func(_ *cobra.Command, ad *keywright.AceData) error {
		before := existing(ad.Application.List(a.ctx, keywright.ApplicationListParams{Ordering: keywright.NewestFirst, Limit: 100}))
		return a.print(change(a, "keywright acedata application list --ordering -created_at", func(ctx context.Context) (*keywright.Application, error) {
			return ad.Application.Create(ctx, p, before)
		}))
	})
	return c
}
