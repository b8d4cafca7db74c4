// dynalite has no types. These are the parts of its insides that the local DynamoDB drives, without dynalite's own HTTP server.

declare module 'dynalite/db/index.js' {
  export interface Table {
    KeySchema: { AttributeName: string }[]
  }
  export interface Store {
    tableDb: { awsAccountId: string; awsRegion: string }
    getTable: (name: string, mustBeActive: boolean, callback: (error: Error | null, table: Table) => void) => void
  }
  const db: {
    create: (options: { createTableMs: number; deleteTableMs: number }) => Store
    /** The error of a condition that the item does not meet. */
    checkConditional: (input: Record<string, unknown>, item: unknown) => Error | null | undefined
  }
  export default db
}

declare module 'dynalite/validations/index.js' {
  import type { Store } from 'dynalite/db/index.js'

  type Input = Record<string, unknown>
  const validations: {
    /** A copy of the input with members of a wrong type refused and unknown ones left out; also changes the input. */
    checkTypes: (input: Input, types: unknown) => Input
    /** Refuses what breaks a constraint, and parses the input's expressions into it. */
    checkValidations: (input: Input, types: unknown, custom: unknown, store: Store) => void
  }
  export default validations
}
