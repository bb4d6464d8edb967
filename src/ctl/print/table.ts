/** `-w table`: members and endpoints. */
import { renderTable } from "../../base/table.ts";
import {
  HASH_HEADINGS,
  HEALTH_HEADINGS,
  hashRows,
  healthRows,
  MEMBER_HEADINGS,
  memberRows,
  STATUS_HEADINGS,
  statusRows,
} from "./rows.ts";
import { type Forms, type Printer, printWith } from "./shown.ts";

const FORMS: Forms = {
  memberList: (response) => renderTable(MEMBER_HEADINGS, memberRows(response)),
  health: (list) => renderTable(HEALTH_HEADINGS, healthRows(list)),
  status: (list) => renderTable(STATUS_HEADINGS, statusRows(list)),
  hashKv: (list) => renderTable(HASH_HEADINGS, hashRows(list)),
};

export const tablePrinter: Printer = { format: "table", print: (kind, value) => printWith(FORMS, kind, value) };
